# SPDX-License-Identifier: MIT
"""
Saved index of a key store, so that a start need not read every document.

A snapshot holds all entries; a journal, appended to and not synced, what was changed
since then. A change is announced there before it is made and told when it is made, so
that after a kill the few keys in between are read again. After a power cut, which the
journal may not have survived, or where anything is odd, all documents are read.

A failure here never fails a change: the saved index is dropped, and the next start
reads the documents. None of it is trusted.
"""

from __future__ import annotations

import hashlib
import threading
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

import msgspec

from hsm_core._internal.stores.filesystem.files import (
    atomic_write,
    read_file,
    remove_file,
)
from hsm_core._internal.stores.filesystem.key_healing import AppendFile, move_file
from hsm_core._internal.stores.filesystem.layout import Layout
from hsm_core._internal.stores.filesystem.opening import sync_directory
from hsm_core.errors import IntegrityError, StoreUnavailableError
from hsm_core.model import KeyId
from hsm_core.protocols import IndexEntry

_MAGIC: Final = b"FHIX\x02"
_DIGEST_BYTES: Final = 32
_HEAD_BYTES: Final = 8


class _Row(msgspec.Struct, array_like=True, frozen=True, gc=False):
    key_id: str
    created_at: int
    name: str
    algorithm: str
    state: str
    tags: tuple[str, ...]
    generation: int
    operations: tuple[str, ...]
    digest: str
    owner: str
    usages: tuple[str, ...]


class Boot(msgspec.Struct, array_like=True, frozen=True, tag=0):
    """First step of a journal: since which start of the machine it is written."""

    boot_id: str


class Begun(msgspec.Struct, array_like=True, frozen=True, tag=1):
    """A key is about to be changed; unless more follows, it must be read again."""

    key_id: KeyId


class Put(msgspec.Struct, array_like=True, frozen=True, tag=2):
    """A key has this entry now."""

    row: _Row


class Gone(msgspec.Struct, array_like=True, frozen=True, tag=3):
    """A key has no entry any more."""

    key_id: KeyId


Step: TypeAlias = Boot | Begun | Put | Gone

_ENCODER: Final = msgspec.msgpack.Encoder()
_ROWS: Final = msgspec.msgpack.Decoder(list[_Row])
_STEP: Final = msgspec.msgpack.Decoder(Step)


class _Reader:
    """Makes entries of rows; texts and tags that are equal lie in memory once."""

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}
        self._tags: dict[tuple[str, ...], frozenset[str]] = {}

    def entry(self, row: _Row) -> IndexEntry:
        tags = self._tags.get(row.tags)
        if tags is None:
            tags = self._tags[row.tags] = frozenset(row.tags)
        usages = self._tags.get(row.usages)
        if usages is None:
            usages = self._tags[row.usages] = frozenset(row.usages)
        return IndexEntry(
            key_id=KeyId(row.key_id),
            created_at=row.created_at,
            name=row.name,
            algorithm=self._texts.setdefault(row.algorithm, row.algorithm),
            state=self._texts.setdefault(row.state, row.state),
            tags=tags,
            generation=row.generation,
            operations=row.operations,
            digest=row.digest,
            owner=self._texts.setdefault(row.owner, row.owner),
            usages=usages,
        )


def put(entry: IndexEntry) -> Put:
    """Return the step that gives a key this entry."""
    return Put(_row_of(entry))


def entry_of(step: Put) -> IndexEntry:
    """Return the entry that a step gives to a key."""
    return _Reader().entry(step.row)


def _row_of(entry: IndexEntry) -> _Row:
    return _Row(
        entry.key_id,
        entry.created_at,
        entry.name,
        entry.algorithm,
        entry.state,
        tuple(sorted(entry.tags)),
        entry.generation,
        entry.operations,
        entry.digest,
        entry.owner,
        tuple(sorted(entry.usages)),
    )


def encode_snapshot(entries: Iterable[IndexEntry]) -> bytes:
    """Return the bytes of a snapshot; entries come back in their order."""
    payload = _ENCODER.encode([_row_of(entry) for entry in entries])
    return b"".join((_MAGIC, hashlib.sha256(payload).digest(), payload))


def decode_snapshot(stored: bytes) -> list[IndexEntry] | None:
    """Return the entries of a snapshot; None if it is damaged."""
    start = len(_MAGIC) + _DIGEST_BYTES
    payload = memoryview(stored)[start:]
    if not stored.startswith(_MAGIC) or len(stored) < start:
        return None
    if hashlib.sha256(payload).digest() != stored[len(_MAGIC) : start]:
        return None
    try:
        rows = _ROWS.decode(payload)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return list(map(_Reader().entry, rows))


def frame(step: Step) -> bytes:
    """Return the bytes of a step: length, checksum, payload."""
    payload = _ENCODER.encode(step)
    head = len(payload).to_bytes(4, "big") + zlib.crc32(payload).to_bytes(4, "big")
    return head + payload


def steps_of(stored: bytes) -> Iterator[Step | None]:
    """Return the steps of a journal in order, and None at the end if more is torn."""
    position = 0
    while position < len(stored):
        begin = position + _HEAD_BYTES
        head = stored[position:begin]
        end = begin + int.from_bytes(head[:4], "big")
        payload = stored[begin:end]
        if end > len(stored) or zlib.crc32(payload) != int.from_bytes(head[4:], "big"):
            yield None
            return
        try:
            yield _STEP.decode(payload)
        except (msgspec.DecodeError, UnicodeDecodeError):
            yield None
            return
        position = end


_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
_BOOT_BYTES: Final = 64
_ROW_BYTES: Final = 16 * 1024
_LEAST_ROWS: Final = 64
_LEAST_JOURNAL_BYTES: Final = 4 * 1024 * 1024
"""A journal of this size, or of that of the snapshot, makes place for a new one."""


@dataclass(slots=True)
class SavedIndex:
    """
    Content of a saved index.

    Attributes:
        entries: By key; not trusted.
        doubtful: Keys whose documents must be read again.
        is_whole: Whether the journal can be continued.
    """

    entries: dict[KeyId, IndexEntry]
    doubtful: set[KeyId] = field(default_factory=set)
    is_whole: bool = True

    def apply(self, step: Step) -> None:
        """Do what a step of the journal says."""
        match step:
            case Begun():
                self.doubtful.add(step.key_id)
            case Put():
                entry = entry_of(step)
                self.entries[entry.key_id] = entry
                self.doubtful.discard(entry.key_id)
            case Gone():
                self.entries.pop(step.key_id, None)
                self.doubtful.discard(step.key_id)
            case _:
                pass


class IndexFiles:
    """
    Snapshot and journal of one store. Callers hold its write lock.

    Args:
        layout: Of the store.
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._boot_id = _read_boot_id()
        self._journal: AppendFile | None = None
        self._journal_bytes = 0
        self._snapshot_bytes = 0
        self._is_broken = True
        self._is_dirty = True
        self._is_stale = False
        self._lock = threading.Lock()
        self._compaction: threading.Thread | None = None

    def load(self, keys: int) -> SavedIndex | None:
        """
        Return what is saved, or None if the documents must be read instead.

        Args:
            keys: How many keys there seem to be; what is much larger is not read.
        """
        limit = _ROW_BYTES * (keys + _LEAST_ROWS)
        try:
            stored = read_file(self._layout.index, limit)
            older = read_file(self._layout.older_journal, limit)
            newer = read_file(self._layout.journal, max(limit, _LEAST_JOURNAL_BYTES))
        except (IntegrityError, StoreUnavailableError):
            return None
        entries = None if stored is None else decode_snapshot(stored)
        if stored is None or entries is None:
            return None
        saved = SavedIndex({entry.key_id: entry for entry in entries})
        for journal in (older, newer):
            if journal is not None and not self._replay(journal, saved):
                return None
        saved.is_whole = saved.is_whole and older is None
        self._is_broken = False
        self._is_dirty = older is not None or newer is not None
        self._snapshot_bytes = len(stored)
        self._journal_bytes = len(newer or b"")
        return saved

    def _replay(self, journal: bytes, saved: SavedIndex) -> bool:
        steps = steps_of(journal)
        first = next(steps, None)
        if not isinstance(first, Boot) or not self._boot_id:
            return False
        for step in steps:
            if step is None:
                saved.is_whole = False
            else:
                saved.apply(step)
        return first.boot_id == self._boot_id

    def begin(self, key_id: KeyId) -> None:
        """Note that a key is about to change."""
        self._append(Begun(key_id))

    def put(self, entry: IndexEntry) -> None:
        """Note a key's new entry."""
        self._append(put(entry))

    def gone(self, key_id: KeyId) -> None:
        """Note that a key no longer has an entry."""
        self._append(Gone(key_id))

    def _append(self, step: Step) -> None:
        if self._is_stale:
            self._give_up()
        if self._is_broken:
            return
        self._is_dirty = True
        data = frame(step)
        try:
            if self._journal is None:
                self._journal = self._open_journal()
            self._journal.append(data)
        except StoreUnavailableError:
            self._give_up()
        else:
            self._journal_bytes += len(data)

    def _open_journal(self) -> AppendFile:
        journal = AppendFile(self._layout.journal)
        if not self._journal_bytes:
            # It must be found after a power cut, or the snapshot would pass for whole.
            head = frame(Boot(self._boot_id))
            try:
                journal.append(head)
                journal.sync()
                sync_directory(self._layout.directory)
            except BaseException:
                journal.close()
                raise
            self._journal_bytes = len(head)
        return journal

    def _give_up(self) -> None:
        with self._lock:
            self._is_broken = self._is_stale = True
            self._close_journal()
            with suppress(StoreUnavailableError):
                self._remove_snapshot()

    def _remove_snapshot(self) -> None:
        if remove_file(self._layout.index):
            sync_directory(self._layout.directory)
        self._is_stale = False

    def _close_journal(self) -> None:
        journal, self._journal, self._journal_bytes = self._journal, None, 0
        if journal is not None:
            with suppress(StoreUnavailableError):
                journal.close()

    @property
    def is_due(self) -> bool:
        """Whether the journal is long enough for a new snapshot."""
        return (
            self._journal_bytes > max(_LEAST_JOURNAL_BYTES, self._snapshot_bytes)
            and not self._is_broken
            and self._compaction is None
        )

    def compact(self, entries: Sequence[IndexEntry]) -> None:
        """
        Begin a new journal, and write a snapshot of these entries meanwhile.

        Once only until the store is closed or the snapshot is written; one that fails
        leaves both journals.
        """
        self._close_journal()
        try:
            move_file(self._layout.journal, self._layout.older_journal)
        except StoreUnavailableError:
            self._give_up()
            return
        self._compaction = threading.Thread(
            target=self._write_meanwhile, args=(entries,), name="hsm-index"
        )
        try:
            self._compaction.start()
        except RuntimeError:
            # No more threads are to be had.
            self._compaction = None
            self._write_meanwhile(entries)

    def _write_meanwhile(self, entries: Sequence[IndexEntry]) -> None:
        snapshot = encode_snapshot(entries)
        with self._lock, suppress(StoreUnavailableError):
            if not self._is_broken:
                self._write(snapshot)
                remove_file(self._layout.older_journal)
        self._compaction = None

    def _write(self, snapshot: bytes) -> None:
        atomic_write(self._layout.index, snapshot, staging=self._layout.staging)
        self._snapshot_bytes = len(snapshot)

    def replace(self, entries: Iterable[IndexEntry]) -> None:
        """Write these entries in place of all that is saved, or leave nothing."""
        self._wait()
        self._close_journal()
        self._is_broken = self._is_dirty = self._is_stale = True
        with suppress(StoreUnavailableError):
            # A journal must not be replayed over a snapshot that it does not belong to.
            self._remove_snapshot()
            self._remove_journals()
            self._write(encode_snapshot(entries))
            self._is_broken = self._is_dirty = False

    def _remove_journals(self) -> None:
        removed = [
            remove_file(self._layout.older_journal),
            remove_file(self._layout.journal),
        ]
        if any(removed):
            sync_directory(self._layout.directory)

    def _wait(self) -> None:
        running, self._compaction = self._compaction, None
        if running is not None:
            running.join()

    def close(self, entries: Sequence[IndexEntry] | None) -> None:
        """Leave a snapshot alone, if anything is new; not if *entries* is None."""
        self._wait()
        if entries is None or not self._is_dirty:
            self._close_journal()
        elif self._is_broken:
            self.replace(entries)
        else:
            self._close_journal()
            with suppress(StoreUnavailableError):
                self._write(encode_snapshot(entries))
                # One that stays says again what the snapshot says already.
                remove_file(self._layout.older_journal)
                remove_file(self._layout.journal)


def _read_boot_id() -> str:
    with suppress(StoreUnavailableError, IntegrityError):
        found = read_file(_BOOT, _BOOT_BYTES, private=False) or b""
        return found.decode("ascii", "replace").strip()
    return ""
