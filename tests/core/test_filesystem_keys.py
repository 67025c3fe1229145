# SPDX-License-Identifier: MIT
"""What is special to a key store in a directory: layout, start and failpoints."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from hsm_core._internal.lib.failpoints import install
from hsm_core._internal.stores.filesystem.stores import FilesystemKeyStore
from hsm_core.errors import (
    ConflictError,
    InvalidInputError,
    NameTakenError,
    OutcomeUnknownError,
    StoreUnavailableError,
)
from hsm_core.model import KeyId, KeyState
from tests.core.filesystem_support import (
    SCENARIOS,
    as_junk,
    key_path,
    make_template,
    seen,
)
from tests.core.key_support import (
    change_of,
    document_of,
    key_id_of,
    operation_of,
)

pytestmark = pytest.mark.usefixtures("private_umask")


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Give the directory of a closed store with three keys."""
    return make_template(tmp_path / "store")


@pytest.fixture
def store(directory: Path) -> Iterator[FilesystemKeyStore]:
    """Give the same store, open."""
    opened = FilesystemKeyStore(directory)
    yield opened
    opened.close()


class TestLayout:
    def test_files(self, directory: Path) -> None:
        """
        The files are those of the published layout, and no others.
        """
        found = {str(p.relative_to(directory)) for p in directory.rglob("*")}
        keys = [f"keys/{key_id_of(number)}" for number in (1, 2, 3)]

        assert {
            "aborted",
            "index",
            "keys",
            "lock",
            "meta",
            "meta/ring",
            "staging",
            "uses",
            *keys,
            *(f"{key}/key.json" for key in keys),
            *(f"{key}/v00000001" for key in keys),
            f"{keys[1]}/v00000002",
        } == found

    def test_modes(self, directory: Path) -> None:
        """
        Directories are 0700 and files 0600.
        """
        modes = {
            (path.is_dir(), path.stat().st_mode & 0o7777)
            for path in [directory, *directory.rglob("*")]
        }

        assert {(True, 0o700), (False, 0o600)} == modes

    def test_reopened(self, directory: Path) -> None:
        """
        What was written is there after a new start: keys, names, operations, marks.
        """
        store = FilesystemKeyStore(directory)
        SCENARIOS["create"](store)
        store.abort(operation_of(66))
        before = seen(store)
        store.close()

        store = FilesystemKeyStore(directory)

        assert before == seen(store)
        assert b"sealed" == store.read_meta("ring")
        named, mark = store.entry("new"), store.find_operation(operation_of(66))
        assert named is not None
        assert key_id_of(9) == named.key_id
        assert mark is not None
        assert mark.aborted
        with pytest.raises(NameTakenError):
            store.commit(change_of(document_of(10, name="new"), operation_of(11)))
        store.close()

    def test_start_changes_nothing(self, directory: Path) -> None:
        """
        Opening and closing a tidy store writes nothing.
        """
        before = {p: p.stat().st_mtime_ns for p in directory.rglob("*")}

        FilesystemKeyStore(directory).close()

        assert before == {p: p.stat().st_mtime_ns for p in directory.rglob("*")}


class TestWhatStartRemoves:
    def test_blob_of_an_unfinished_rotation(self, directory: Path) -> None:
        """
        A blob that no document names stays, and the next rotation replaces it.
        """
        blob = key_path(directory, 1) / "v00000002"
        blob.write_bytes(b"leftover")
        store = FilesystemKeyStore(directory)
        kept = blob.read_bytes()

        SCENARIOS["rotate"](store)

        assert b"leftover" == kept
        assert b"fresh" * 100 == store.get_blob(key_id_of(1), 2)
        store.close()

    def test_blobs_beside_an_older_document(self, directory: Path) -> None:
        """
        Where an older document was put back, the newer blob stays for the repair.
        """
        older = document_of(2, operations=(operation_of(2),))
        (key_path(directory, 2) / "key.json").write_bytes(
            change_of(older, operation_of(2)).document
        )

        FilesystemKeyStore(directory).close()

        assert (key_path(directory, 2) / "v00000002").exists()

    def test_blobs_beside_no_document(self, directory: Path) -> None:
        """
        Where a document is missing or damaged, its blobs stay.
        """
        (key_path(directory, 1) / "key.json").unlink()
        as_junk(key_path(directory, 2) / "key.json")

        FilesystemKeyStore(directory).close()

        assert (key_path(directory, 1) / "v00000001").exists()
        assert (key_path(directory, 2) / "v00000002").exists()

    def test_blob_of_a_destroyed_version(self, directory: Path) -> None:
        """
        A destruction that a crash cut short is finished on demand, not on opening.

        Only who can authenticate the document may say that its versions are destroyed.
        """
        store = FilesystemKeyStore(directory)
        SCENARIOS["destroy"](store)
        store.close()
        blob = key_path(directory, 1) / "v00000001"
        blob.write_bytes(b"back again")

        store = FilesystemKeyStore(directory)
        assert blob.exists()
        store.discard_blobs(key_id_of(1), [1, 7])
        store.close()

        assert not blob.exists()

    @pytest.mark.parametrize(
        "edit",
        [
            {"state": KeyState.REVOKED, "blob_sha256": ""},
            {"state": KeyState.DESTROYED, "blob_sha256": "ab" * 32},
        ],
    )
    def test_blob_of_a_doubtful_version(
        self, directory: Path, edit: dict[str, object]
    ) -> None:
        """
        A version that is destroyed by half only, as no honest one is, keeps its blob.
        """
        document = document_of(1)
        version = msgspec.structs.replace(document.versions[0], **edit)
        document = msgspec.structs.replace(document, versions=(version,))
        (key_path(directory, 1) / "key.json").write_bytes(
            change_of(document, operation_of(1)).document
        )

        FilesystemKeyStore(directory).close()

        assert (key_path(directory, 1) / "v00000001").exists()

    def test_blob_is_not_replaced_where_the_document_is_damaged(
        self, directory: Path, store: FilesystemKeyStore
    ) -> None:
        """
        With a damaged document nobody knows which blobs are in use: none is replaced.
        """
        as_junk(key_path(directory, 2) / "key.json")
        document = document_of(2, generation=3, versions=2)

        with pytest.raises(ConflictError):
            store.commit(change_of(document, operation_of(8), blobs={2: b"other"}))

        assert b"blob-2-2" == store.get_blob(key_id_of(2), 2)


class TestFailpoints:
    POINTS = (
        "store.before_blobs",
        "store.after_blobs",
        "store.before_document",
        "store.after_document",
        "store.after_remove",
    )

    @pytest.mark.parametrize("scenario", SCENARIOS)
    def test_all_are_passed(self, store: FilesystemKeyStore, scenario: str) -> None:
        """
        Each mutation passes every point once, in their order.
        """
        passed: list[str] = []
        with install(passed.append):
            SCENARIOS[scenario](store)

        assert self.POINTS == tuple(passed)

    @pytest.mark.parametrize("point", POINTS)
    @pytest.mark.parametrize("scenario", SCENARIOS)
    @pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
    def test_foreign_exception(
        self,
        directory: Path,
        scenario: str,
        point: str,
        error: type[BaseException],
    ) -> None:
        """
        An unforeseen exception before the commit changes nothing; after it, it is told.
        """
        store = FilesystemKeyStore(directory)
        before = seen(store)

        def fail(name: str) -> None:
            if name == point:
                raise error

        committed = point in {"store.after_document", "store.after_remove"}
        told = committed and error is RuntimeError
        with install(fail), pytest.raises(OutcomeUnknownError if told else error):
            SCENARIOS[scenario](store)

        if committed:
            with pytest.raises(StoreUnavailableError):
                seen(store)
        else:
            assert before == seen(store)
        store.close()
        store = FilesystemKeyStore(directory)
        assert committed == (store.find_operation(operation_of(90)) is not None)
        store.close()


def test_one_version_destroyed(directory: Path) -> None:
    """
    A version that is destroyed while others live loses its blob, and they keep theirs.
    """
    store = FilesystemKeyStore(directory)
    half = document_of(2, generation=3, versions=2)
    first = half.versions[0]
    assert first.state is KeyState.RETIRED
    store.commit(change_of(half, operation_of(90), removed_blobs=(1,)))

    assert store.get_blob(key_id_of(2), 1) is None
    assert b"blob-2-2" == store.get_blob(key_id_of(2), 2)
    store.close()


@pytest.mark.parametrize("versions", [(0,), (100_000_000,), (1, -1)])
def test_discard_of_no_version(
    store: FilesystemKeyStore, versions: tuple[int, ...]
) -> None:
    """
    A version that can't be is refused, and so is what could be a path.
    """
    with pytest.raises(InvalidInputError):
        store.discard_blobs(key_id_of(1), versions)
    with pytest.raises(InvalidInputError):
        store.discard_blobs(KeyId("../keys"), (1,))

    assert b"blob-1" == store.get_blob(key_id_of(1), 1)


def test_repr(store: FilesystemKeyStore, directory: Path) -> None:
    """
    The representation names the directory.
    """
    assert f"<FilesystemKeyStore in <FileRecords {str(directory)!r}>>" == repr(store)
