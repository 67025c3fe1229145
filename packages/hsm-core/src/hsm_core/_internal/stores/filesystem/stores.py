# SPDX-License-Identifier: MIT
"""Stores in directories: keys and approvals as files."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Final

from hsm_core._internal.keyring.documents import is_key_id
from hsm_core._internal.stores.approvals import RecordApprovalStore
from hsm_core._internal.stores.filesystem.files import read_file, remove_file
from hsm_core._internal.stores.filesystem.layout import FlatLayout, Layout
from hsm_core._internal.stores.filesystem.records import FileRecords
from hsm_core._internal.stores.index import KeyIndex, collector_paused
from hsm_core._internal.stores.index_rows import (
    COLUMNS,
    is_listed,
    read_entry,
    values_of,
)
from hsm_core._internal.stores.keys import RecordKeyStore
from hsm_core._internal.stores.sqlite import connection as connections
from hsm_core._internal.stores.sqlite.files import check_files, prepare_file, size_of
from hsm_core._internal.stores.sqlite.key_rows import BEHIND
from hsm_core.errors import HSMError, IntegrityError, StoreUnavailableError
from hsm_core.model import KeyId
from hsm_core.protocols import IndexEntry

_FEW: Final = 1000
"""So many keys are checked at opening; of more, each is when it is read."""

_APPLICATION_ID: Final = 0x46485849
"""Saved index: ``FHXI``."""

_FORMAT: Final = 3
"""The first two were files of our own."""

_CREATE: Final = (
    "CREATE TABLE keys (n INTEGER PRIMARY KEY, claim, key_id TEXT NOT NULL UNIQUE, "
    "created_at, name, algorithm, state, tags, generation, operations, digest, owner, "
    "usages)",
    "CREATE TABLE boot (id TEXT NOT NULL)",
    "INSERT INTO boot VALUES ('')",
)
_VALUES: Final = "(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)"
_PUT: Final = (
    f"INSERT INTO keys ({COLUMNS}) VALUES {_VALUES} "  # noqa: S608 (our own names)
    f"ON CONFLICT (key_id) DO UPDATE SET ({COLUMNS}) = {_VALUES}"
)
_MARK: Final = (
    "INSERT INTO keys (key_id) VALUES (?) "
    "ON CONFLICT (key_id) DO UPDATE SET created_at = NULL"
)
_BEFORE_ALL: Final = -(2**63)
_ROW_BYTES: Final = 16 * 1024
_LEAST_ROWS: Final = 64
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")
_BOOT_BYTES: Final = 64


class SavedKeyIndex(KeyIndex):
    """
    Index in memory, saved beside the keys, so that a start need not read all documents.

    The row of a key is marked before its document is replaced, and written after it;
    after a kill, the marked keys are read again. Rows are not synced before the store
    is closed: after a power cut, or where anything is odd, all documents are read.

    A failure here never fails a change: the file is deleted, and the next start reads
    the documents. Nothing of it is trusted. Changes need the write lock of the store.

    Args:
        layout: Of the store.
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self._layout = layout
        self._boot_id = _read_boot_id()
        self._saved: sqlite3.Connection | None = None
        self._is_begun = False
        self._is_stale = False

    def load(self, folders: set[str]) -> set[KeyId] | None:
        """
        Take the entries that are saved.

        Args:
            folders: Names of the directories of keys.

        Returns:
            The keys whose documents must be read; None if all must be.
        """
        doubtful: set[KeyId] | None = None

        def load() -> None:
            nonlocal doubtful
            self._check_files(len(folders))
            self._saved = self._open()
            entries, doubtful = _read(self._saved, self._boot_id, folders)
            super(SavedKeyIndex, self).replace(entries)

        return doubtful if self._unless_failed(load) else None

    def _open(self) -> sqlite3.Connection:
        # A start waits for nobody who reads it: it can do without.
        return connections.open_exclusively(
            self._layout.index, _APPLICATION_ID, patience_seconds=0
        )

    def _check_files(self, keys: int) -> None:
        # What is much larger than an index of so many keys is not read.
        limit = _ROW_BYTES * (keys + _LEAST_ROWS)
        if any(size_of(path) > limit for path in self._layout.index_files):
            raise IntegrityError("The saved index is too long.")
        check_files(self._layout.index, _APPLICATION_ID)

    def _begin(self, connection: sqlite3.Connection) -> None:
        # Durable before the first change, or what is left of an index after a power cut
        # would pass for whole.
        if not self._is_begun:
            self._note(connection, self._boot_id)
            connection.execute("PRAGMA synchronous = OFF")
            connection.execute("PRAGMA wal_autocheckpoint = 1000").fetchall()
            self._is_begun = True

    def _unless_failed(self, work: Callable[[], object]) -> bool:
        """Do something; delete what is saved and return False if it fails."""
        try:
            with connections.sqlite_errors():
                work()
        except (HSMError, UnicodeError, OverflowError):
            self._give_up()
            return False
        return True

    def _give_up(self) -> None:
        saved, self._saved, self._is_begun = self._saved, None, False
        if saved is not None:
            connections.close(saved, fold_log=False)
        self._is_stale = True
        with suppress(StoreUnavailableError):
            for path in self._layout.index_files:
                remove_file(path)
            self._is_stale = False

    def _save(self, statement: str, values: Callable[[], tuple[object, ...]]) -> None:
        if self._is_stale:
            self._give_up()
        saved = self._saved
        if saved is None:
            return

        def save() -> None:
            self._begin(saved)
            saved.execute(statement, values())

        self._unless_failed(save)

    def mark(self, key_id: KeyId) -> None:
        """Mark the row of a key that is about to change."""
        self._save(_MARK, lambda: (key_id,))

    def put(self, entry: IndexEntry) -> None:
        """Add or replace the entry of a key."""
        super().put(entry)
        self._save(_PUT, lambda: values_of(entry))

    def remove(self, key_id: KeyId) -> None:
        """Remove a key."""
        super().remove(key_id)
        self._save("DELETE FROM keys WHERE key_id = ?", lambda: (key_id,))

    def replace(self, entries: Iterable[IndexEntry]) -> None:
        """Replace all entries, and save them if any is new."""
        before = self.entries()
        super().replace(entries)
        if before != self.entries():
            self._save_all()

    def rebuild(self, entries: Iterable[IndexEntry]) -> None:
        """Replace all entries, and save them; the oldest key comes first."""
        super().rebuild(entries)
        self._save_all()

    def _save_all(self) -> None:
        """Write all entries in place of what is saved, or leave nothing."""

        def save() -> None:
            if self._saved is None:
                prepare_file(self._layout.index, _APPLICATION_ID)
                self._saved = self._open()
                for statement in _CREATE:
                    self._saved.execute(statement)
                self._saved.execute(f"PRAGMA user_version = {_FORMAT}")
            self._begin(self._saved)
            self._saved.execute("BEGIN")
            self._saved.execute("DELETE FROM keys")
            self._saved.executemany(_PUT, map(values_of, self.entries()))
            self._saved.execute("COMMIT")

        if self._saved is None:
            self._give_up()
        self._unless_failed(save)

    def close(self, is_settled: bool) -> None:
        """
        Make durable what is saved.

        Args:
            is_settled: Whether the entries say of each key what is there; where not,
                the marked keys must be read again.
        """
        if is_settled and self._saved is None:
            self._save_all()
        saved = self._saved
        if saved is None:
            return
        is_done = is_settled and self._is_begun
        if not is_done or self._unless_failed(lambda: self._finish(saved)):
            self._saved = None
            # Where nothing was written, folding leaves no empty log behind.
            connections.close(saved, fold_log=is_settled or not self._is_begun)

    def _finish(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA synchronous = FULL")
        # All else is synced before the end is noted.
        self._note(connection, self._boot_id)
        self._note(connection, "")

    def _note(self, connection: sqlite3.Connection, boot_id: str) -> None:
        # A checkpoint syncs the file, as it has something to move.
        connection.execute("UPDATE boot SET id = ?", (boot_id,))
        connections.checkpoint(connection, "TRUNCATE")


def _read(
    connection: sqlite3.Connection, boot_id: str, folders: set[str]
) -> tuple[list[IndexEntry], set[KeyId]]:
    """
    Return the entries that are saved, and the keys whose documents must be read.

    Raises:
        HSMError: They are not what this boot of the system, or a clean end, has left.
        sqlite3.Error: They can't be read.
    """
    connections.refuse_foreign(connection, "The saved index")
    connections.verify(connection)
    stored_format = connection.execute("PRAGMA user_version").fetchone()
    boots = connection.execute("SELECT id FROM boot").fetchall()
    if stored_format != (_FORMAT,) or boots not in ([("",)], [(boot_id,)]):
        raise IntegrityError("The saved index is not known to be whole.")
    entries: list[IndexEntry] = []
    marked: set[object] = set()
    for row in connection.execute(BEHIND, (_BEFORE_ALL, -1)):
        if is_listed(row):
            entries.append(read_entry(row))
        else:
            marked.add(row[2])
    known = {entry.key_id for entry in entries}
    doubtful = {
        KeyId(found)
        for found in marked | folders - known
        if isinstance(found, str) and is_key_id(found)
    }
    return entries, doubtful


def _read_boot_id() -> str:
    with suppress(StoreUnavailableError, IntegrityError):
        found = read_file(_BOOT, _BOOT_BYTES, private=False) or b""
        if boot_id := found.decode("ascii", "replace").strip():
            return boot_id
    # One that no other start has: what is saved counts only after a clean end.
    return os.urandom(16).hex()


class FilesystemKeyStore(RecordKeyStore):
    """
    Key store in a directory.

    Args:
        directory: Made with mode 0700 if absent.

    Raises:
        StoreLockedError: Another process has it open.
        UnsafeFileModeError: Other users may reach it.
        StoreUnavailableError: It can't be made or read.
    """

    def __init__(self, directory: Path) -> None:
        layout = Layout(directory)
        records = FileRecords(layout, "key store")
        index = SavedKeyIndex(layout)
        super().__init__(records, index)
        try:
            with collector_paused():
                self._open(layout, index, records.folders)
        except BaseException:
            # Not all keys may be in the index.
            index.close(is_settled=False)
            records.close()
            raise
        records.before_close = index.close

    def _open(self, layout: Layout, index: SavedKeyIndex, folders: set[str]) -> None:
        doubtful = index.load(folders)
        if doubtful is None or len(folders) <= _FEW:
            for name in sorted(filter(is_key_id, folders)):
                layout.check_key(KeyId(name))
        if doubtful is None:
            self._load()
            return
        self._load_aborted()
        for key_id in sorted(doubtful):
            self.refresh(key_id)


class FileApprovalStore(RecordApprovalStore):
    """
    Approval store in a directory: one file per approval, all of them read at opening.

    Args:
        directory: Made with mode 0700 if absent.

    Raises:
        StoreLockedError: Another process has it open.
        UnsafeFileModeError: Other users may reach it.
        StoreUnavailableError: It can't be made or read.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(FileRecords(FlatLayout(directory), "approval store"))
