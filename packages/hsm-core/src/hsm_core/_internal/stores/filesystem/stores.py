# SPDX-License-Identifier: MIT
"""Stores in directories: keys and approvals as files."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

from hsm_core._internal.stores.approvals import RecordApprovalStore
from hsm_core._internal.stores.filesystem.layout import FlatLayout, Layout
from hsm_core._internal.stores.filesystem.records import FileRecords
from hsm_core._internal.stores.filesystem.saved_index import IndexFiles, SavedIndex
from hsm_core._internal.stores.index import KeyIndex, collector_paused
from hsm_core._internal.stores.keys import RecordKeyStore
from hsm_core._internal.stores.records import is_key_id
from hsm_core.model import KeyId
from hsm_core.protocols import IndexEntry, KeyChange

_FEW: Final = 1000
"""So many keys are checked at opening; of more, each is when it is read."""


class SavedKeyIndex(KeyIndex):
    """
    Index in memory, saved beside the keys. Changes need the write lock of the store.

    Args:
        layout: Of the store.
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self._files = IndexFiles(layout)

    def load(self, keys: int) -> SavedIndex | None:
        """
        Take the saved index, or return None if all documents must be read.

        Args:
            keys: How many keys there seem to be.
        """
        return self._files.load(keys)

    def take(self, saved: SavedIndex) -> None:
        """Replace all entries by what is saved."""
        super().replace(saved.entries.values())
        if not saved.is_whole:
            self._files.replace(self.entries())

    def check(self, change: KeyChange) -> None:
        """Check that a change may be made, and note that the key is about to change."""
        super().check(change)
        self._files.begin(change.entry.key_id)

    def put(self, entry: IndexEntry) -> None:
        """Add or replace the entry of a key."""
        super().put(entry)
        self._files.put(entry)
        if self._files.is_due:
            self._files.compact(self.entries())

    def remove(self, key_id: KeyId) -> None:
        """Remove a key."""
        super().remove(key_id)
        self._files.gone(key_id)

    def replace(self, entries: Iterable[IndexEntry]) -> None:
        """Replace all entries, and save them if any is new."""
        before = self.entries()
        super().replace(entries)
        if before != self.entries():
            self._files.replace(self.entries())

    def rebuild(self, entries: Iterable[IndexEntry]) -> None:
        """Replace all entries, and save them; the oldest key comes first."""
        super().rebuild(entries)
        self._files.replace(self.entries())

    def close(self, is_settled: bool) -> None:
        """
        Save what is new.

        Args:
            is_settled: Whether the entries say of each key what is there; where not,
                the journal knows which keys must be read again.
        """
        self._files.close(self.entries() if is_settled else None)


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
            records.close()
            raise
        records.before_close = index.close

    def _open(self, layout: Layout, index: SavedKeyIndex, folders: set[str]) -> None:
        saved = index.load(len(folders))
        doubtful = None if saved is None else _doubtful(saved, folders)
        if saved is None or doubtful is None or len(folders) <= _FEW:
            for name in sorted(filter(is_key_id, folders)):
                layout.check_key(KeyId(name))
        if saved is None or doubtful is None:
            self._load()
            return
        index.take(saved)
        self._load_aborted()
        for key_id in sorted(doubtful):
            self.refresh(key_id)


def _doubtful(saved: SavedIndex, folders: set[str]) -> set[KeyId] | None:
    """Return the keys whose documents must be read; None if the index is odd."""
    foreign = {KeyId(name) for name in folders - saved.entries.keys()}
    doubtful = saved.doubtful | set(filter(is_key_id, foreign))
    missing = saved.entries.keys() - folders
    return doubtful if all(map(is_key_id, missing | doubtful)) else None


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
