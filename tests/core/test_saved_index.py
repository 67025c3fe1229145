# SPDX-License-Identifier: MIT
"""The saved index of a file store: what a start may leave unread, and what not."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsm_core._internal.stores.filesystem import saved_index
from hsm_core._internal.stores.filesystem.records import FileRecords
from hsm_core._internal.stores.filesystem.saved_index import (
    Begun,
    Boot,
    Gone,
    IndexFiles,
    Step,
    decode_snapshot,
    encode_snapshot,
    entry_of,
    frame,
    put,
    steps_of,
)
from hsm_core._internal.stores.filesystem.stores import (
    FilesystemKeyStore,
    SavedKeyIndex,
)
from hsm_core.errors import (
    KeyTamperedError,
    OutcomeUnknownError,
    StoreUnavailableError,
    UnsafeFileModeError,
)
from hsm_core.model import KeyId
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
    seen,
    struck,
)
from tests.core.key_support import (
    change_of,
    document_of,
    everything,
    key_id_of,
    operation_of,
    page,
)
from tests.core.test_key_index import entries

pytestmark = pytest.mark.usefixtures("private_umask")

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


def abandon(store: FilesystemKeyStore) -> None:
    """Leave a store as a kill does, without its saying goodbye."""
    index, records = store._index, store._records  # noqa: SLF001
    assert isinstance(index, SavedKeyIndex)
    assert isinstance(records, FileRecords)
    index._files._wait()  # noqa: SLF001
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
        After a kill it reads none either, as the journal says what has changed.
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
        with mock.patch.object(IndexFiles, "put"):
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
        A journal that a power cut may have shortened is not believed.
        """
        store = FilesystemKeyStore(directory)
        SCENARIOS["edit"](store)
        abandon(store)
        monkeypatch.setattr(saved_index, "_read_boot_id", lambda: "another")

        assert {key_id_of(n) for n in (1, 2, 3)} == reads_of(directory)
        assert all_of(without_index(directory)) == all_of(directory)

    @pytest.mark.parametrize("cut", range(1, 60))
    def test_torn_journal(self, directory: Path, cut: int) -> None:
        """
        Wherever a journal is torn, what was announced and not told is read again.
        """
        store = FilesystemKeyStore(directory)
        SCENARIOS["edit"](store)
        abandon(store)
        journal = directory / "index.journal"
        stored = journal.read_bytes()
        os.truncate(journal, len(stored) - cut)

        assert all_of(without_index(directory)) == all_of(directory)
        assert set() == reads_of(directory)

    @pytest.mark.parametrize("odd", ODD)
    @pytest.mark.parametrize("name", ["index", "index.journal", "index.journal.old"])
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
        if name.endswith("old"):
            path.write_bytes(frame(Boot("?")))
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

    def test_every_flipped_byte(self, directory: Path) -> None:
        """
        A snapshot with any byte changed is not used.
        """
        index = directory / "index"
        stored = index.read_bytes()
        for position in range(len(stored)):
            flipped = bytearray(stored)
            flipped[position] ^= 0x40
            assert decode_snapshot(bytes(flipped)) is None
        for length in range(0, len(stored), 7):
            assert decode_snapshot(stored[:length]) is None

    def test_impossible_key(self, directory: Path) -> None:
        """
        A saved key that could be a path leads to a full reading, not to the path.
        """
        store = FilesystemKeyStore(directory)
        entry = store.entry(key_id_of(1))
        store.close()
        assert entry is not None
        hostile = IndexEntry(
            key_id=KeyId("../../etc"),
            created_at=1,
            name="root",
            algorithm="",
            state="",
            tags=frozenset(),
            generation=1,
        )
        (directory / "index").write_bytes(encode_snapshot([entry, hostile]))

        store = FilesystemKeyStore(directory)

        assert store.entry("root") is None
        assert {key_id_of(n) for n in (1, 2, 3)} == set(page(store))
        store.close()

    def test_whole_file_of_another_form(self, directory: Path) -> None:
        """
        A snapshot whose checksum is right and whose rows are none is not used.
        """
        payload = b"\x91\x01"
        digest = hashlib.sha256(payload).digest()
        (directory / "index").write_bytes(b"FHIX\x01" + digest + payload)

        assert {key_id_of(n) for n in (1, 2, 3)} == reads_of(directory)

    def test_step_of_another_form(self, directory: Path) -> None:
        """
        A step whose checksum is right and that is none ends the journal.
        """
        store = FilesystemKeyStore(directory)
        SCENARIOS["edit"](store)
        abandon(store)
        payload = b"\x91\x09"
        step = len(payload).to_bytes(4, "big") + zlib.crc32(payload).to_bytes(4, "big")
        with (directory / "index.journal").open("ab") as journal:
            journal.write(step + payload)

        assert all_of(without_index(directory)) == all_of(directory)

    def test_key_that_is_forgotten(self, directory: Path) -> None:
        """
        A key that nothing is stored of is forgotten, by the journal too.
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
        Where the system does not say which of its runs this is, no journal is believed.
        """
        monkeypatch.setattr(saved_index, "_BOOT", directory / "absent")
        store = FilesystemKeyStore(directory)
        SCENARIOS["edit"](store)
        abandon(store)

        assert {key_id_of(n) for n in (1, 2, 3)} == reads_of(directory)
        monkeypatch.setattr(saved_index, "_BOOT", directory)
        assert all_of(without_index(directory)) == all_of(directory)

    def test_stale_snapshot(self, directory: Path) -> None:
        """
        An older snapshot that was put back is corrected by building the index anew.

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

        assert {key_id_of(n) for n in (1, 2, 3)} == set(page(store))
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
    def test_compaction(self, directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        A long journal makes place for a new snapshot, while changes go on.
        """
        monkeypatch.setattr(saved_index, "_LEAST_JOURNAL_BYTES", 2000)
        store = FilesystemKeyStore(directory)
        before = (directory / "index").stat().st_ino
        for number in range(10, 40):
            document = document_of(number, operations=(operation_of(number),))
            store.commit(change_of(document, operation_of(number)))
        abandon(store)

        assert before != (directory / "index").stat().st_ino
        assert not (directory / "index.journal.old").exists()
        assert set() == reads_of(copy(directory, directory.parent / "copy"))
        assert all_of(without_index(directory)) == all_of(directory)

    def test_kill_while_a_snapshot_is_written(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        Until the new snapshot is there, the old one and two journals say it all.
        """
        monkeypatch.setattr(saved_index, "_LEAST_JOURNAL_BYTES", 2000)
        monkeypatch.setattr(threading.Thread, "start", lambda self: None)
        monkeypatch.setattr(threading.Thread, "join", lambda self: None)
        store = FilesystemKeyStore(directory)
        for number in range(10, 40):
            document = document_of(number, operations=(operation_of(number),))
            store.commit(change_of(document, operation_of(number)))
        abandon(store)
        monkeypatch.undo()

        assert (directory / "index.journal.old").exists()
        assert (directory / "index.journal").exists()
        assert set() == reads_of(copy(directory, directory.parent / "copy"))
        assert all_of(without_index(directory)) == all_of(directory)
        assert not (directory / "index.journal.old").exists()

    @pytest.mark.parametrize("failing", ["rename", "fsync", "no thread"])
    def test_compaction_that_fails(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch, failing: str
    ) -> None:
        """
        A snapshot that can't be begun or written disturbs no change and no later start.
        """
        monkeypatch.setattr(saved_index, "_LEAST_JOURNAL_BYTES", 2000)
        compact = IndexFiles.compact

        def failing_compact(files: IndexFiles, found: list[IndexEntry]) -> None:
            fake = struck(errno.EIO, 1, sticky=False)
            fake.names = frozenset({failing})
            with patched(fake):
                compact(files, found)
                files._wait()  # noqa: SLF001

        def no_thread(thread: threading.Thread) -> None:
            raise RuntimeError

        if failing == "no thread":
            monkeypatch.setattr(threading.Thread, "start", no_thread)
        monkeypatch.setattr(IndexFiles, "compact", failing_compact)
        store = FilesystemKeyStore(directory)
        for number in range(10, 40):
            document = document_of(number, operations=(operation_of(number),))
            store.commit(change_of(document, operation_of(number)))
        abandon(store)

        assert all_of(without_index(directory)) == all_of(directory)

    def test_index_given_up_while_it_is_compacted(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        A snapshot that is ready after the journal was given up is not written.
        """
        monkeypatch.setattr(saved_index, "_LEAST_JOURNAL_BYTES", 2000)
        encoding = threading.Event()

        def slow(found: list[IndexEntry]) -> bytes:
            assert encoding.wait(60)
            return encode_snapshot(found)

        store = FilesystemKeyStore(directory)
        monkeypatch.setattr(saved_index, "encode_snapshot", slow)
        for number in range(10, 40):
            document = document_of(number, operations=(operation_of(number),))
            store.commit(change_of(document, operation_of(number)))
        begin = IndexFiles.begin

        def failing(files: IndexFiles, key_id: KeyId) -> None:
            with patched(struck(errno.EIO, 1, sticky=False)):
                begin(files, key_id)

        with mock.patch.object(IndexFiles, "begin", failing):
            SCENARIOS["edit"](store)
        encoding.set()
        abandon(store)

        assert not (directory / "index").exists()
        assert all_of(without_index(directory)) == all_of(directory)

    @pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO])
    @pytest.mark.parametrize("sticky", [False, True], ids=["once", "from then on"])
    def test_no_change_fails_for_the_index(
        self, directory: Path, number: int, *, sticky: bool
    ) -> None:
        """
        Where the index can't be written changes are made, and the next start is right.
        """
        begin = IndexFiles.begin
        for nth in range(1, 12):
            folder = copy(directory, directory.parent / str(nth))
            store = FilesystemKeyStore(folder)
            fake = struck(number, nth, sticky=sticky)

            def failing(
                files: IndexFiles, key_id: KeyId, fake: FaultyOS = fake
            ) -> None:
                with patched(fake):
                    begin(files, key_id)

            with mock.patch.object(IndexFiles, "begin", failing):
                SCENARIOS["edit"](store)
            store.abort(operation_of(55))
            abandon(store)
            assert all_of(without_index(folder)) == all_of(folder)

    @pytest.mark.parametrize("sticky", [False, True], ids=["once", "from then on"])
    def test_closing_never_fails(self, directory: Path, *, sticky: bool) -> None:
        """
        A snapshot that can't be written at the end costs the next start some reading.
        """
        nth = 0
        while True:
            nth += 1
            folder = copy(directory, directory.parent / str(nth))
            store = FilesystemKeyStore(folder)
            SCENARIOS["create"](store)
            before = seen(store)
            fake = struck(errno.ENOSPC, nth, sticky=sticky)
            with patched(fake):
                store.close()
            again = FilesystemKeyStore(folder)
            assert before == seen(again)
            again.close()
            if fake.count < nth:
                break
        assert nth > 5

    def test_child_of_fork(
        self, directory: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        A child made by fork that closes the store writes nothing.
        """
        store = FilesystemKeyStore(directory)
        SCENARIOS["edit"](store)
        before = {p: p.read_bytes() for p in directory.glob("index*")}
        parent = os.getpid()
        monkeypatch.setattr(os, "getpid", lambda: parent + 1)

        store.close()

        assert before == {p: p.read_bytes() for p in directory.glob("index*")}

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
        assert {key_id_of(n) for n in (1, 2, 3)} == set(page(store))
        store.close()

    def test_same_index_again(self, directory: Path) -> None:
        """
        Replacing an index by the same writes nothing; only the lock is checked.
        """
        store = FilesystemKeyStore(directory)
        found = [store.entry(key_id_of(n)) for n in (1, 2, 3)]
        fake = FaultyOS()
        with patched(fake):
            store.reindex([entry for entry in found if entry])
        store.close()

        assert {"lstat"} == {name for name, _ in fake.trace}


@settings(max_examples=50, deadline=None)
@given(st.lists(entries(), max_size=6, unique_by=lambda entry: entry.key_id))
def test_snapshot_round_trip(found: list[IndexEntry]) -> None:
    """
    Entries come back as they were, in their order.
    """
    assert found == decode_snapshot(encode_snapshot(found))


@settings(max_examples=50, deadline=None)
@given(entries(), st.binary(max_size=40))
def test_journal_round_trip(entry: IndexEntry, torn: bytes) -> None:
    """
    Steps come back as they were, and what follows them and is none ends the reading.
    """
    steps: list[Step] = [Boot("b"), Begun(entry.key_id), put(entry), Gone(entry.key_id)]
    stored = b"".join(frame(step) for step in steps)

    read = list(steps_of(stored + torn))

    assert steps == read[:4]
    assert entry == entry_of(put(entry))
    assert [None] * bool(torn) == read[4:]
