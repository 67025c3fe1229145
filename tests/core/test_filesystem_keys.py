# SPDX-License-Identifier: MIT
"""A key store in a directory: layout, start, unsafe modes and foreign contents."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import msgspec
import pytest

from hsm_core._internal.keyring.documents import decode_document, peek
from hsm_core._internal.stores.filesystem.stores import FilesystemKeyStore
from hsm_core.errors import (
    ConflictError,
    GenerationConflictError,
    IntegrityError,
    KeyTamperedError,
    StoreUnavailableError,
    UnsafeFileModeError,
)
from hsm_core.model import KeyState
from tests.core.filesystem_support import (
    COUNTER,
    SCENARIOS,
    as_directory,
    as_empty,
    as_fifo,
    as_giant,
    as_junk,
    as_link,
    key_path,
    make_template,
    prepare_small,
)
from tests.core.key_support import (
    RING,
    change_of,
    document_of,
    key_id_of,
    operation_of,
    page,
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


class TestUnsafeModes:
    @pytest.mark.parametrize("mode", [0o777, 0o750, 0o701, 0o704])
    @pytest.mark.parametrize("part", [".", "keys", "meta", "aborted", "staging"])
    def test_directories(self, directory: Path, part: str, mode: int) -> None:
        """
        A directory that others may reach stops the start, and is not repaired.
        """
        (directory / part).chmod(mode)

        with pytest.raises(UnsafeFileModeError, match=f"{mode:04o}"):
            FilesystemKeyStore(directory)

        assert mode == (directory / part).stat().st_mode & 0o7777

    def test_directory_of_a_key(self, directory: Path) -> None:
        """
        So does the directory of a key.
        """
        key_path(directory, 2).chmod(0o755)

        with pytest.raises(UnsafeFileModeError, match=key_id_of(2)):
            FilesystemKeyStore(directory)

    @pytest.mark.parametrize("mode", [0o640, 0o602])
    def test_files(self, directory: Path, mode: int) -> None:
        """
        So does any file of the store.
        """
        uses = directory / "uses" / key_id_of(7)
        uses.write_bytes(b"value")
        aborted = directory / "aborted" / operation_of(7)
        aborted.write_bytes(b"aborted\n")
        for path in (uses, aborted):
            path.chmod(0o600)
        with closing(FilesystemKeyStore(directory)) as store:
            store.write_meta("ring", b"sealed")
        files = [path for path in directory.rglob("*") if path.is_file()]
        assert {"lock", "index", "ring", "key.json", "v00000001"} < {
            path.name for path in files
        }

        for path in files:
            path.chmod(mode)
            with pytest.raises(UnsafeFileModeError) as caught:
                FilesystemKeyStore(directory)
            assert str(path) == caught.value.facts["path"]
            path.chmod(0o600)
        FilesystemKeyStore(directory).close()

    def test_files_while_open(self, directory: Path, store: FilesystemKeyStore) -> None:
        """
        A file that is opened to others is not read any more; what it is is not told.
        """
        store.write_meta("ring", b"sealed")
        store.uses.put(key_id_of(7), b"value")
        for path in (
            key_path(directory, 1) / "key.json",
            key_path(directory, 1) / "v00000001",
            directory / "meta" / "ring",
            directory / "uses" / key_id_of(7),
        ):
            path.chmod(0o640)
        for read in (
            lambda: store.get(key_id_of(1)),
            lambda: store.get_blob(key_id_of(1), 1),
            lambda: store.read_meta("ring"),
            lambda: store.uses.get(key_id_of(7)),
        ):
            with pytest.raises(
                StoreUnavailableError, match="accessible to other users"
            ):
                read()

    def test_lock(self, directory: Path) -> None:
        """
        So does a lock that others could hold for ever.
        """
        (directory / "lock").chmod(0o666)

        with pytest.raises(UnsafeFileModeError, match="lock"):
            FilesystemKeyStore(directory)

    def test_link(self, directory: Path, tmp_path: Path) -> None:
        """
        So does a link in place of the store.
        """
        (tmp_path / "link").symlink_to(directory)

        with pytest.raises(UnsafeFileModeError, match="symbolic link"):
            FilesystemKeyStore(tmp_path / "link")

    def test_lock_is_free_after_a_refusal(self, directory: Path) -> None:
        """
        A start that failed leaves nothing locked.
        """
        (directory / "meta").chmod(0o755)
        with pytest.raises(UnsafeFileModeError):
            FilesystemKeyStore(directory)
        (directory / "meta").chmod(0o700)

        FilesystemKeyStore(directory).close()


ODD = [as_link, as_fifo, as_directory, as_giant, as_junk, as_empty]


class TestHostileContents:
    @pytest.mark.parametrize("change", ODD)
    @pytest.mark.parametrize("while_open", [False, True], ids=["closed", "open"])
    def test_document(
        self, directory: Path, change: Callable[[Path], None], *, while_open: bool
    ) -> None:
        """
        A document that was replaced is never believed; the key is listed all the same.
        """
        store = FilesystemKeyStore(directory)
        if not while_open:
            store.close()
        change(key_path(directory, 2) / "key.json")
        if not while_open:
            store = FilesystemKeyStore(directory)

        with pytest.raises(KeyTamperedError):
            decode_document(
                key_id_of(2),
                RING.store_id,
                store.get(key_id_of(2)).document,
                RING.document_mac,
            )
        assert {key_id_of(n) for n in (1, 2, 3)} == set(page(store))
        assert {key_id_of(n) for n in (1, 2, 3)} == {s.key_id for s in store.scan()}
        assert peek(key_id_of(1), store.get(key_id_of(1)).document) is not None
        SCENARIOS["create"](store)
        store.close()

    @pytest.mark.parametrize("change", ODD)
    def test_blob(self, directory: Path, change: Callable[[Path], None]) -> None:
        """
        A blob that was replaced is not read as it was, nor read through a link.
        """
        store = FilesystemKeyStore(directory)
        change(key_path(directory, 2) / "v00000001")

        found = store.get_blob(key_id_of(2), 1)

        assert found in {b"", b"\xff" * 1000}
        assert b"blob-2-2" == store.get_blob(key_id_of(2), 2)
        store.close()

    @pytest.mark.parametrize("change", [as_link, as_fifo, as_directory, as_giant])
    def test_small_values(
        self,
        directory: Path,
        store: FilesystemKeyStore,
        change: Callable[[Path], None],
    ) -> None:
        """
        A small value that is no plain file is damage; a counter has no bytes then.
        """
        prepare_small(store)
        change(directory / "meta" / "ring")
        change(directory / "uses" / COUNTER)

        with pytest.raises(IntegrityError):
            store.read_meta("ring")
        assert b"" == store.uses.get(COUNTER)

    def test_counter_that_is_not_the_first(self, store: FilesystemKeyStore) -> None:
        """
        A counter that is there already is never replaced by a first one.
        """
        prepare_small(store)

        with pytest.raises(StoreUnavailableError):
            store.uses.put_first(COUNTER, b"first")

        assert b"old" == store.uses.get(COUNTER)

    @pytest.mark.parametrize("while_open", [False, True], ids=["closed", "open"])
    def test_missing_document(self, directory: Path, *, while_open: bool) -> None:
        """
        A key without its document is missing, not unknown, and not a shorter list.
        """
        store = FilesystemKeyStore(directory)
        if not while_open:
            store.close()
        (key_path(directory, 2) / "key.json").unlink()
        if not while_open:
            store = FilesystemKeyStore(directory)

        with pytest.raises(KeyTamperedError, match="missing") as caught:
            store.get(key_id_of(2))

        assert {"key_id": key_id_of(2), "integrity": "missing"} == caught.value.facts
        assert b"" == {s.key_id: s.document for s in store.scan()}[key_id_of(2)]
        assert key_id_of(2) in page(store)
        assert b"blob-2" == store.get_blob(key_id_of(2), 1)
        store.close()

    def test_missing_directory_while_open(
        self, directory: Path, store: FilesystemKeyStore
    ) -> None:
        """
        A key whose directory is gone is missing, and can't be changed any more.
        """
        shutil.rmtree(key_path(directory, 1))

        with pytest.raises(KeyTamperedError, match="missing"):
            store.get(key_id_of(1))
        with pytest.raises(StoreUnavailableError):
            SCENARIOS["rotate"](store)

        assert store.get_blob(key_id_of(1), 1) is None
        assert key_id_of(1) in page(store)

    def test_unreadable_key_is_not_overwritten(self, directory: Path) -> None:
        """
        A key whose document is damaged can't be created anew over it.
        """
        as_junk(key_path(directory, 1) / "key.json")
        store = FilesystemKeyStore(directory)

        with pytest.raises(GenerationConflictError):
            store.commit(change_of(document_of(1), operation_of(8)))

        assert b"\xff" * 1000 == store.get(key_id_of(1)).document
        store.close()

    def test_foreign_names(self, directory: Path) -> None:
        """
        Whatever else lies in the store is left alone, and not followed.
        """
        keys = directory / "keys"
        outside = directory.parent / "outside"
        shutil.copytree(key_path(directory, 1), outside)
        (keys / key_id_of(7)).symlink_to(outside)
        (keys / key_id_of(8)).write_bytes(b"a file")
        (keys / key_id_of(1).upper().replace("0", "A")).mkdir()
        (keys / "lost+found").mkdir()
        os.mkfifo(keys / "fifo")
        os.mkfifo(directory / "aborted" / "fifo")
        foreign = directory / "uses" / (key_id_of(1) + ".bak")
        for path in (foreign, directory / "uses" / ".tmp-0011223344556677"):
            path.touch(mode=0o600)
        for number in range(3000):
            (keys / f"junk-{number}").touch()
        before = sorted(keys.iterdir())

        store = FilesystemKeyStore(directory)

        assert [key_id_of(n) for n in (3, 2, 1)] == page(store)
        with pytest.raises(StoreUnavailableError):
            store.commit(change_of(document_of(8), operation_of(8)))
        with pytest.raises(StoreUnavailableError):
            store.commit(change_of(document_of(7), operation_of(7)))
        assert before == sorted(keys.iterdir())
        assert [] == store.uses.material_ids()
        assert [foreign] == list((directory / "uses").iterdir())
        store.close()

    def test_copied_directory(self, directory: Path) -> None:
        """
        The copy of a key under another id is listed as unreadable, with no name of its.
        """
        shutil.copytree(key_path(directory, 1), key_path(directory, 5))

        store = FilesystemKeyStore(directory)

        entry = store.entry(key_id_of(5))
        assert entry is not None
        assert (0, "") == (entry.generation, entry.state)
        mark = store.find_operation(operation_of(1))
        assert mark is not None
        assert key_id_of(1) == mark.key_id
        store.close()

    @pytest.mark.parametrize("name", ["lock", "meta", "keys", "staging"])
    def test_part_replaced_by_fifo(self, directory: Path, name: str) -> None:
        """
        A part of the layout that is something else stops the start, without waiting.
        """
        path = directory / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
        os.mkfifo(path, 0o600)

        with pytest.raises(StoreUnavailableError):
            FilesystemKeyStore(directory)
