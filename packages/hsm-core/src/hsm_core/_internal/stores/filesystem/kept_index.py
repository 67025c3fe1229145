# SPDX-License-Identifier: MIT
"""Index of a file key store: in memory, and saved beside the keys."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Final

from hsm_core._internal.keyring.documents import read_index
from hsm_core._internal.stores.bulk import collector_paused
from hsm_core._internal.stores.filesystem.layout import Layout
from hsm_core._internal.stores.filesystem.opening import path_exists
from hsm_core._internal.stores.filesystem.saved_index import IndexFiles, SavedIndex
from hsm_core._internal.stores.index import KeyIndex
from hsm_core._internal.stores.naming import is_key_id
from hsm_core.model import KeyId
from hsm_core.protocols import IndexEntry

_FEW: Final = 1000


class KeptIndex:
    """
    Entries of one store. Changes need the write lock of the store.

    Args:
        layout: Of the store.

    Attributes:
        memory: To be read under *lock*.
        lock: Held only while nothing is waited for.
    """

    def __init__(self, layout: Layout) -> None:
        self.memory = KeyIndex()
        self.lock = threading.Lock()
        self._layout = layout
        self._files = IndexFiles(layout)

    def load(self, names: set[str]) -> None:
        """
        Load the saved index, or else read all documents.

        Args:
            names: Of the directories below that of the keys.

        Raises:
            UnsafeFileModeError: Other users may reach the directory of a key, or a
                file in it; where there are many, this is looked at when the key is
                read.
            StoreUnavailableError: Something can't be read now.
        """
        with collector_paused():
            saved = self._files.load(len(names))
            if saved is None or not self._take(saved, names):
                self.rebuild()

    def _take(self, saved: SavedIndex, names: set[str]) -> bool:
        missing = saved.entries.keys() - names
        foreign = {KeyId(name) for name in names - saved.entries.keys()}
        doubtful = saved.doubtful | set(filter(is_key_id, foreign))
        if not all(map(is_key_id, missing | doubtful)):
            return False
        if len(names) <= _FEW:
            for name in sorted(filter(is_key_id, names)):
                self._layout.check_key(KeyId(name))
        self.memory.replace(saved.entries.values())
        if not saved.is_whole:
            self._files.replace(self.memory.entries())
        for key_id in sorted(doubtful):
            self.read_again(key_id)
        return True

    def rebuild(self) -> None:
        """Read all documents, and save what they say; the oldest key comes first."""
        found = [read_index(*item) for item in self._layout.read_keys()]
        found.sort(key=attrgetter("created_at", "key_id"))
        with self.lock:
            self.memory.replace(found)
        self._files.replace(found)

    def replace(self, entries: Sequence[IndexEntry]) -> None:
        """Take these entries in place of all."""
        with self.lock:
            before = self.memory.entries()
            self.memory.replace(entries)
        if before != self.memory.entries():
            self._files.replace(self.memory.entries())

    def begin(self, key_id: KeyId) -> None:
        """Note that a key is about to change."""
        self._files.begin(key_id)

    def put(self, entry: IndexEntry) -> None:
        """Add or replace the entry of a key."""
        with self.lock:
            self.memory.put(entry)
        self._files.put(entry)
        if self._files.is_due:
            self._files.compact(self.memory.entries())

    def read_again(self, key_id: KeyId) -> IndexEntry | None:
        """
        Read a key's document again; return its entry, or None if nothing is there.

        Raises:
            StoreUnavailableError: It can't be read now.
        """
        stored = self._layout.read(self._layout.document(key_id))
        if stored is None and path_exists(self._layout.folder(key_id)):
            stored = b""
        if stored is None:
            with self.lock:
                self.memory.remove(key_id)
            self._files.gone(key_id)
            return None
        entry = read_index(key_id, stored)
        self.put(entry)
        return entry

    def foreign(self, names: Iterable[str]) -> list[KeyId]:
        """Return those of the names that a key may have, but none here has."""
        with self.lock:
            unknown = [n for n in map(KeyId, names) if n not in self.memory]
        return sorted(filter(is_key_id, unknown))

    def close(self, *, is_settled: bool) -> None:
        """
        Save what is new.

        Args:
            is_settled: Whether the entries say of each key what is there; where not,
                the journal knows which keys must be read again.
        """
        self._files.close(self.memory.entries() if is_settled else None)
