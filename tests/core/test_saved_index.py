# SPDX-License-Identifier: MIT
"""The saved index of a file store: what a start may leave unread, and what not."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsm_core._internal.stores.filesystem import stores
from hsm_core._internal.stores.filesystem.layout import Layout
from hsm_core._internal.stores.filesystem.records import FileRecords
from hsm_core._internal.stores.filesystem.stores import (
    FilesystemKeyStore,
    SavedKeyIndex,
)
from hsm_core._internal.stores.sqlite import connection as connections
from hsm_core.errors import (
    KeyTamperedError,
    OutcomeUnknownError,
    StoreUnavailableError,
    UnsafeFileModeError,
)
from hsm_core.protocols import IndexEntry
from tests.core.filesystem_support import (
    SCENARIOS,
    FaultyOS,
    as_directory,
    as_empty,
    as_fifo,
    as_giant,
    as_junk,
    as_link,
    copy,
    failing_sync_of_directories,
    folder_in_memory,
    key_path,
    make_template,
    patched,
)
from tests.core.forked import holds_in_child
from tests.core.key_support import (
    change_of,
    document_of,
    everything,
    key_id_of,
    operation_of,
    page,
)
from tests.core.sqlite_support import edited
from tests.core.test_key_index import entries

pytestmark = pytest.mark.usefixtures("private_umask")

ALL = {key_id_of(n) for n in (1, 2, 3)}
ODD = [as_link, as_fifo, as_directory, as_giant, as_junk, as_empty]


@pytest.fixture
def directory() -> Iterator[Path]:
    """Give the directory of a closed store with three keys."""
    with folder_in_memory() as folder:
        yield make_template(folder / "store")


def reads_of(directory: Path) -> set[str]:
    """Open and close a store, and return the numbers of the keys that were read."""
    fake = FaultyOS(names=frozenset({"open"}))
    with patched(fake):
        FilesystemKeyStore(directory).close()
    opened = (what[0] for _, what in fake.trace)
    return {Path(path).parent.name for path in opened if path.endswith("key.json")}


def all_of(directory: Path) -> tuple[object, ...]:
    """Return what a store says after a start."""
    store = FilesystemKeyStore(directory)
    found = (
        everything(store),
        [store.entry(key_id) for key_id in sorted(page(store))],
        set(store.digests()),
        [store.find_operation(operation_of(n)) for n in (1, 2, 3, 20, 90)],
    )
    store.close()
    return found


def without_index(directory: Path) -> Path:
    """Return a copy of a store that has no saved index."""
    bare = copy(directory, directory.parent / f"bare-{os.urandom(4).hex()}")
    for path in bare.glob("index*"):
        path.unlink()
    return bare


def index_of(store: FilesystemKeyStore) -> SavedKeyIndex:
    """Return the index of a store."""
    index = store._index  # noqa: SLF001
    assert isinstance(index, SavedKeyIndex)
    return index


def abandon(store: FilesystemKeyStore) -> None:
    """Leave a store as a kill does, without its saying goodbye."""
    index, records = index_of(store), store._records  # noqa: SLF001
    assert isinstance(records, FileRecords)
    if index._saved is not None:  # noqa: SLF001
        files = {p: p.read_bytes() for p in records._layout.directory.glob("index*")}  # noqa: SLF001
        index._saved.close()  # noqa: SLF001
        for path, content in files.items():
            path.write_bytes(content)
            path.chmod(0o600)
    records._is_closed = True  # noqa: SLF001
    records._held.release()  # noqa: SLF001


class TestStart:
    def test_reads_no_documents(self, directory: Path) -> None:
        """
        After a clean end a start reads no document at all.
        """
        assert set() == reads_of(directory)
        assert all_of(without_index(directory)) == all_of(directory)

    def test_after_a_kill(self, directory: Path) -> None:
        """
        After a kill it reads none either, as each row was written after its change.
        """
        store = FilesystemKeyStore(directory)
        SCENARIOS["create"](store)
        store.commit(change_of(document_of(3, generation=2), operation_of(91)))
        abandon(store)

        assert set() == reads_of(copy(directory, directory.parent / "copy"))
        assert all_of(without_index(directory)) == all_of(directory)

    @pytest.mark.parametrize("scenario", SCENARIOS)
    def test_commit_that_was_not_told(self, directory: Path, scenario: str) -> None:
        """
        A key that was about to change when the process was killed is read again.
        """
        store = FilesystemKeyStore(directory)
        with mock.patch.object(SavedKeyIndex, "put"):
            SCENARIOS[scenario](store)
        abandon(store)

        assert all_of(without_index(directory)) == all_of(directory)
        store = FilesystemKeyStore(directory)
        assert store.find_operation(operation_of(90)) is not None
        store.close()

    def test_unsettled_at_the_end(self, directory: Path) -> None:
        """
        A store that ends while a write is unsettled reads that key again.
        """
        store = FilesystemKeyStore(directory)
        SCENARIOS["create"](store)
        with patched(failing_sync_of_directories()):
            with pytest.raises(OutcomeUnknownError):
                store.commit(change_of(document_of(3, generation=2), operation_of(91)))
        store.close()

        assert {key_id_of(3)} == reads_of(copy(directory, directory.parent / "copy"))
        assert all_of(without_index(directory)) == all_of(directory)

    def test_another_start_of_the_machine(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        Rows that a power cut may have taken back are not believed.
        """
        store = FilesystemKeyStore(directory)
        SCENARIOS["edit"](store)
        abandon(store)
        monkeypatch.setattr(stores, "_read_boot_id", lambda: "another")

        assert ALL == reads_of(directory)
        assert all_of(without_index(directory)) == all_of(directory)

    @pytest.mark.parametrize(
        ("name", "odd"),
        [("index", odd) for odd in ODD] + [("index-wal", odd) for odd in ODD[:4]],
    )
    def test_hostile_files(
        self, directory: Path, name: str, odd: Callable[[Path], None]
    ) -> None:
        """
        What lies in place of the index is neither believed, followed nor waited for.
        """
        store = FilesystemKeyStore(directory)
        SCENARIOS["edit"](store)
        abandon(store)
        expected = all_of(without_index(directory))
        path = directory / name
        if odd is as_link:
            path.rename(directory.parent / "elsewhere")
            path.symlink_to(directory.parent / "elsewhere")
        else:
            odd(path)

        assert expected == all_of(directory)
        store = FilesystemKeyStore(directory)
        store.commit(change_of(document_of(1, generation=2), operation_of(92)))
        before = everything(store)
        store.close()
        assert before == all_of(directory)[0]

    @pytest.mark.parametrize(
        "statement",
        [
            "UPDATE keys SET key_id = '../../etc' WHERE n = 1",
            "UPDATE keys SET tags = 'x'",
            "UPDATE keys SET owner = x'ff'",
            "UPDATE keys SET created_at = 'now'",
            "DELETE FROM boot",
            "INSERT INTO boot VALUES ('')",
            "DROP TABLE keys",
            "CREATE TRIGGER evil AFTER INSERT ON keys BEGIN DELETE FROM keys; END",
            "PRAGMA application_id = 7",
            "PRAGMA user_version = 4",
        ],
    )
    def test_index_that_others_edited(self, directory: Path, statement: str) -> None:
        """
        An index with anything in it that no store writes is made again from documents.
        """
        expected = all_of(without_index(directory))
        edited(directory / "index", statement)

        assert reads_of(copy(directory, directory.parent / "copy")) >= ALL
        assert expected == all_of(directory)
        assert set() == reads_of(directory)

    @pytest.mark.parametrize("cut", [1, 100, 4096, 8192])
    def test_cut_off(self, directory: Path, cut: int) -> None:
        """
        An index that lost its end is not believed.
        """
        index = directory / "index"
        os.truncate(index, index.stat().st_size - cut)

        assert all_of(without_index(directory)) == all_of(directory)

    def test_index_of_an_earlier_release(self, directory: Path) -> None:
        """
        The files of an earlier release are removed, and all documents are read.
        """
        (directory / "index").write_bytes(b"FHIX\x02" + bytes(40))
        for name in ("index.journal", "index.journal.old"):
            (directory / name).touch(mode=0o600)

        assert reads_of(directory) >= ALL
        assert ["index"] == [path.name for path in directory.glob("index*")]

    def test_key_that_is_forgotten(self, directory: Path) -> None:
        """
        A key that nothing is stored of is forgotten, in the saved index too.
        """
        store = FilesystemKeyStore(directory)
        folder = key_path(directory, 2)
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()
        forgotten = store.refresh(key_id_of(2))
        abandon(store)

        store = FilesystemKeyStore(directory)

        assert forgotten is None
        assert {key_id_of(1), key_id_of(3)} == set(page(store))
        store.close()

    def test_unknown_run_of_the_system(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        Where the system does not tell its boots apart, only a clean end is believed.
        """
        monkeypatch.setattr(stores, "_BOOT", directory / "absent")
        store = FilesystemKeyStore(directory)
        SCENARIOS["edit"](store)
        abandon(store)

        assert ALL == reads_of(directory)
        monkeypatch.setattr(stores, "_BOOT", directory)
        assert all_of(without_index(directory)) == all_of(directory)

    def test_older_index(self, directory: Path) -> None:
        """
        An older index that was put back is corrected by building the index anew.

        The start can't know; who compares the digests with the trail does.
        """
        stale = (directory / "index").read_bytes()
        store = FilesystemKeyStore(directory)
        SCENARIOS["edit"](store)
        store.close()
        (directory / "index").write_bytes(stale)

        store = FilesystemKeyStore(directory)
        before = store.entry(key_id_of(3))
        store.rebuild()
        after = store.entry(key_id_of(3))
        store.close()

        assert [1, 2] == [entry.generation for entry in (before, after) if entry]
        assert all_of(without_index(directory)) == all_of(directory)

    def test_key_that_is_gone(self, directory: Path) -> None:
        """
        A key whose directory was deleted is missing, not a shorter list.
        """
        folder = key_path(directory, 2)
        for path in folder.iterdir():
            path.unlink()
        folder.rmdir()

        store = FilesystemKeyStore(directory)

        assert ALL == set(page(store))
        assert (key_id_of(2), b"") in {(s.key_id, s.document) for s in store.scan()}
        with pytest.raises(KeyTamperedError, match="missing"):
            store.get(key_id_of(2))
        store.close()

    def test_key_that_came_while_closed(self, directory: Path) -> None:
        """
        A directory that the index does not know is read at the start.
        """
        other = make_template(directory.parent / "other")
        store = FilesystemKeyStore(other)
        SCENARIOS["create"](store)
        store.close()
        key_path(other, 9).rename(key_path(directory, 9))

        assert {key_id_of(9)} == reads_of(copy(directory, directory.parent / "copy"))
        store = FilesystemKeyStore(directory)
        assert key_id_of(9) in page(store)
        store.close()

    def test_key_that_came_and_others_may_reach(self, directory: Path) -> None:
        """
        One that others may reach is refused, as any is.
        """
        key_path(directory, 9).mkdir()
        key_path(directory, 9).chmod(0o755)

        with pytest.raises(UnsafeFileModeError, match=key_id_of(9)):
            FilesystemKeyStore(directory)

    def test_key_that_came_while_open(self, directory: Path) -> None:
        """
        One that comes while the store is open is shown to who walks over all keys.
        """
        store = FilesystemKeyStore(directory)
        stored = (key_path(directory, 1) / "key.json").read_bytes()
        folder = key_path(directory, 9)
        folder.mkdir(mode=0o700)
        (folder / "key.json").write_bytes(stored)

        found = {item.key_id: item.document for item in store.scan()}

        assert stored == found[key_id_of(9)]
        assert store.entry(key_id_of(9)) is None
        assert store.refresh(key_id_of(9)) is not None
        assert key_id_of(9) in {item.key_id for item in store.scan()}
        store.close()


class TestFolders:
    @pytest.mark.parametrize("mode", [0o755, 0o701])
    def test_reachable_by_others(self, directory: Path, mode: int) -> None:
        """
        A key whose directory others may reach is refused at the start and when read.
        """
        store = FilesystemKeyStore(directory)
        key_path(directory, 2).chmod(mode)
        with pytest.raises(StoreUnavailableError):
            store.get(key_id_of(2))
        with pytest.raises(StoreUnavailableError):
            store.get_blob(key_id_of(2), 1)
        assert 3 == len(list(store.scan()))
        store.close()

        with pytest.raises(UnsafeFileModeError):
            FilesystemKeyStore(directory)

    def test_link_to_a_directory(self, directory: Path) -> None:
        """
        A link in place of a key's directory is damage, and never followed.
        """
        store = FilesystemKeyStore(directory)
        folder = key_path(directory, 2)
        folder.rename(directory.parent / "elsewhere")
        folder.symlink_to(directory.parent / "elsewhere")

        assert b"" == store.get(key_id_of(2)).document
        assert b"" == store.get_blob(key_id_of(2), 1)
        store.close()

    def test_nothing_is_written_through_a_link(self, directory: Path) -> None:
        """
        Nor is anything written or removed behind it.
        """
        store = FilesystemKeyStore(directory)
        elsewhere = directory.parent / "elsewhere"
        key_path(directory, 1).rename(elsewhere)
        key_path(directory, 1).symlink_to(elsewhere)
        before = {path: path.read_bytes() for path in elsewhere.iterdir()}
        for scenario in ("rotate", "destroy"):
            with pytest.raises(StoreUnavailableError):
                SCENARIOS[scenario](store)
        store.discard_blobs(key_id_of(1), [1])

        assert before == {path: path.read_bytes() for path in elsewhere.iterdir()}
        assert store.available
        store.close()


class TestWriting:
    def test_child_of_fork(self, directory: Path) -> None:
        """
        A child made by fork that closes the store writes nothing.
        """
        store = FilesystemKeyStore(directory)
        SCENARIOS["edit"](store)
        before = {p: p.read_bytes() for p in directory.glob("index*")}

        def close() -> bool:
            store.close()
            return before == {p: p.read_bytes() for p in directory.glob("index*")}

        assert holds_in_child(close)
        store.close()
        assert before != {p: p.read_bytes() for p in directory.glob("index*")}

    def test_reindex_is_saved(self, directory: Path) -> None:
        """
        An index that was replaced is the one that the next start finds.
        """
        store = FilesystemKeyStore(directory)
        one, two = store.entry(key_id_of(1)), store.entry(key_id_of(2))
        assert one is not None
        assert two is not None
        store.reindex([two, one])
        abandon(store)

        store = FilesystemKeyStore(directory)

        # The third is there, and unknown to that index.
        assert ALL == set(page(store))
        store.close()

    @pytest.mark.parametrize("nth", range(1, 5))
    def test_no_change_fails_for_the_index(self, directory: Path, nth: int) -> None:
        """
        Where the index can't be written changes are made, and the next start is right.
        """
        store = FilesystemKeyStore(directory)
        index = index_of(store)
        real = index._saved  # noqa: SLF001
        assert real is not None
        calls = 0

        def execute(*arguments: object) -> object:
            nonlocal calls
            calls += 1
            if calls >= nth:
                raise sqlite3.OperationalError("disk I/O error")
            return real.execute(*arguments)  # type: ignore[arg-type]

        failing = mock.Mock(wraps=real, execute=execute)
        with mock.patch.object(index, "_saved", failing):
            SCENARIOS["create"](store)
            store.commit(change_of(document_of(1, generation=2), operation_of(92)))
            assert (failing is index._saved) == (calls < nth)  # noqa: SLF001
        abandon(store)

        assert all_of(without_index(directory)) == all_of(directory)

    def test_index_that_can_not_be_deleted(self, directory: Path) -> None:
        """
        An index that failed and can't be deleted at once is deleted before a change.
        """
        store = FilesystemKeyStore(directory)
        with mock.patch.object(
            stores, "remove_file", side_effect=StoreUnavailableError
        ):
            index_of(store)._give_up()  # noqa: SLF001
        kept = (directory / "index").exists()
        SCENARIOS["edit"](store)
        gone = not (directory / "index").exists()
        abandon(store)

        assert (kept, gone) == (True, True)
        assert all_of(without_index(directory)) == all_of(directory)

    def test_closing_never_fails(self, directory: Path) -> None:
        """
        An index that can't be finished costs the next start some reading.
        """
        store = FilesystemKeyStore(directory)
        SCENARIOS["edit"](store)
        with mock.patch.object(
            connections, "checkpoint", side_effect=sqlite3.OperationalError
        ):
            store.close()

        assert reads_of(copy(directory, directory.parent / "copy")) >= ALL
        assert all_of(without_index(directory)) == all_of(directory)


@settings(max_examples=50, deadline=None)
@given(st.lists(entries(), max_size=6, unique_by=lambda entry: entry.key_id))
def test_entries_come_back(found: list[IndexEntry]) -> None:
    """
    Entries come back as they were, in their order.
    """
    with folder_in_memory() as folder:
        index = SavedKeyIndex(Layout(folder))
        index.replace(found)
        index.close(is_settled=True)
        again = SavedKeyIndex(Layout(folder))

        assert again.load({entry.key_id for entry in found}) == set()
        assert found == again.entries()
        again.close(is_settled=True)
