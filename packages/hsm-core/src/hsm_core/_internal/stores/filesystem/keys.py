# SPDX-License-Identifier: MIT
"""
Key store in a directory, safe against kills and power cuts.

After a failed sync behind a rename the content of the disk is unknown, and a later
successful sync proves nothing about it. The store then refuses everything until it has
read and rewritten the affected files.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from hsm_core._internal.stores import naming
from hsm_core._internal.stores.filesystem.commits import Commits
from hsm_core._internal.stores.filesystem.files import list_directory, read_file
from hsm_core._internal.stores.filesystem.healing import Unsettled
from hsm_core._internal.stores.filesystem.kept_index import KeptIndex
from hsm_core._internal.stores.filesystem.layout import Layout
from hsm_core._internal.stores.filesystem.opening import (
    lock_directory,
    make_private_directory,
)
from hsm_core._internal.stores.filesystem.uses import FilesystemUseCounters
from hsm_core.errors import (
    KeyNotFoundError,
    KeyTamperedError,
    StoreUnavailableError,
)
from hsm_core.model import Integrity, KeyId
from hsm_core.protocols import (
    IndexEntry,
    IndexPage,
    IndexQuery,
    KeyChange,
    KeyDigest,
    KeyStore,
    OperationMark,
    StoreAccount,
    StoredKey,
)

_META_BYTES: Final = 1024 * 1024


class FilesystemKeyStore(KeyStore):
    """
    Documents and blobs as files below one directory.

    Args:
        directory: Made with mode 0700 if absent.

    Raises:
        StoreLockedError: Another process has it open.
        UnsafeFileModeError: Other users may reach it.
        StoreUnavailableError: It can't be made or read.

    Attributes:
        uses: Use counters in the same directory, open as long as the store is.
    """

    def __init__(self, directory: Path) -> None:
        self._layout = Layout(directory)
        self._unsettled = Unsettled(self._layout)
        self.uses = FilesystemUseCounters(
            self._layout, self._check_usable, self._check_writable, self._unsettled
        )
        self._kept = KeptIndex(self._layout)
        self._index = self._kept.memory
        self._reading = self._kept.lock
        self._writing = threading.Lock()
        self._commits = Commits(self._layout, self._kept, self._unsettled)
        self._process = os.getpid()
        self._is_closed = False
        make_private_directory(directory)
        self._lock = lock_directory(directory)
        try:
            self._load()
        except BaseException:
            self._lock.release()
            raise

    def __repr__(self) -> str:
        return f"<FilesystemKeyStore {str(self._layout.directory)!r}>"

    def _load(self) -> None:
        names = self._layout.prepare()
        self._read_aborted()
        self._kept.load(names)

    def _read_aborted(self) -> None:
        for operation_id in list_directory(self._layout.aborted)[1]:
            with self._reading:
                self._index.abort(operation_id)

    def _check_writable(self) -> None:
        self._check_usable()
        self._lock.check()

    def _check_usable(self) -> None:
        self._check_open()
        if self._unsettled or self._lock.is_lost:
            raise StoreUnavailableError("A write failed; reopen the key store.")

    def _check_open(self) -> None:
        if self._is_closed:
            raise StoreUnavailableError("The key store is closed.")
        if os.getpid() != self._process:
            raise StoreUnavailableError(
                "The key store was opened by the parent process; open it again in "
                "this one."
            )

    @property
    def available(self) -> bool:
        """Whether it is open and locked, and every write that failed was settled."""
        return not (self._is_closed or self._unsettled or self._lock.is_lost)

    def reopen(self) -> None:
        """
        Make durable what failed writes left, and read it again.

        Raises:
            StoreLockedError: Another process has locked the store meanwhile.
            StoreUnavailableError: It still can't be; to be tried again later.
        """
        with self._writing, self.uses.writing:
            self._check_open()
            if not (self._unsettled or self._lock.is_lost):
                return
            self._lock.renew()
            self._unsettled.settle()
            self._read_aborted()
            for key_id in self._unsettled.key_ids:
                self._kept.read_again(key_id)
            self._unsettled.clear()

    def get(self, key_id: KeyId, /) -> StoredKey:
        """
        Return a key's document.

        Raises:
            KeyNotFoundError: There is no such key.
            KeyTamperedError: There is, and its document is gone.
        """
        if not self._knows(key_id):
            raise KeyNotFoundError
        stored = self._layout.read(self._layout.document(key_id), guarded=True)
        if stored is None:
            raise KeyTamperedError(
                f"The document of key {key_id} is missing.",
                key_id=key_id,
                integrity=Integrity.MISSING.value,
            )
        return StoredKey(key_id, stored)

    def get_blob(self, key_id: KeyId, version: int, /) -> bytes | None:
        """Return the sealed blob of a version, or None if there is none."""
        if not self._knows(key_id):
            return None
        return self._layout.read(self._layout.blob(key_id, version), guarded=True)

    def _knows(self, key_id: KeyId) -> bool:
        self._check_usable()
        with self._reading:
            return key_id in self._index

    def commit(self, change: KeyChange, /) -> None:
        """Make one change; see `KeyStore.commit`."""
        naming.check_change(change)
        with self._writing:
            self._check_writable()
            with self._reading:
                self._index.check(change)
            self._commits.make(change)

    def entry(self, reference: str, /) -> IndexEntry | None:
        """Return the index entry of a key by id, or by name if not destroyed."""
        self._check_usable()
        with self._reading:
            return self._index.entry(reference)

    def find(self, query: IndexQuery, /) -> IndexPage:
        """Return a page of the index."""
        self._check_usable()
        with self._reading:
            return self._index.find(query)

    def find_operation(self, operation_id: str, /) -> OperationMark | None:
        """Return where an operation id stands."""
        self._check_usable()
        with self._reading:
            return self._index.find_operation(operation_id)

    def abort(self, operation_id: str, /) -> None:
        """Mark an operation id as aborted; see `KeyStore.abort`."""
        naming.check_operation_id(operation_id)
        with self._writing:
            self._check_writable()
            with self._reading:
                self._index.check_abort(operation_id)
            self._commits.write(self._layout.aborted / operation_id, b"aborted\n")
            with self._reading:
                self._index.abort(operation_id)

    def scan(self) -> Iterator[StoredKey]:
        """
        Return every key that was there when the walk began, and those unknown here.

        A key whose document is gone comes with an empty one.
        """
        self._check_usable()
        with self._reading:
            key_ids = self._index.key_ids()
        key_ids += self._kept.foreign(list_directory(self._layout.keys)[0])
        for key_id in key_ids:
            self._check_usable()
            stored = self._layout.read(self._layout.document(key_id))
            yield StoredKey(key_id, stored or b"")

    def digests(self, bucket: int | None = None, /) -> Iterator[KeyDigest]:
        """Return what the index says of all keys, or of those of one bucket."""
        self._check_usable()
        with self._reading:
            found = self._index.digests(bucket)
        yield from found

    def refresh(self, key_id: KeyId, /) -> IndexEntry | None:
        """Read a key's document again; see `KeyStore.refresh`."""
        if not naming.is_key_id(key_id):
            return None
        with self._writing:
            self._check_writable()
            return self._kept.read_again(key_id)

    def correct(self, entry: IndexEntry, /) -> None:
        """Put the index right for a key; see `KeyStore.correct`."""
        with self._writing:
            self._check_writable()
            if entry.key_id in self._index:
                self._kept.put(entry)

    def rebuild(self) -> None:
        """Rebuild the index from all documents."""
        with self._writing:
            self._check_writable()
            self._kept.rebuild()

    def read_account(self) -> None:
        """Return nothing: no account is kept here."""
        self._check_usable()

    def write_account(self, account: StoreAccount, /) -> None:
        """Do nothing: no account is kept here."""
        self._check_usable()

    def reindex(self, entries: Sequence[IndexEntry], /) -> None:
        """Replace the index; see `KeyStore.reindex`."""
        with self._writing:
            self._check_writable()
            self._kept.replace(entries)

    def discard_blobs(self, key_id: KeyId, versions: Sequence[int], /) -> None:
        """Delete blobs of destroyed versions; see `KeyStore.discard_blobs`."""
        naming.check_versions(key_id, versions)
        with self._writing:
            self._check_writable()
            self._commits.discard(key_id, versions)

    def read_meta(self, name: str, /) -> bytes | None:
        """
        Return a small named value.

        Raises:
            IntegrityError: What lies there is no plain file of ours.
        """
        naming.check_meta_name(name)
        self._check_usable()
        return read_file(self._layout.meta / name, _META_BYTES)

    def write_meta(self, name: str, value: bytes, /) -> None:
        """Replace a small named value; after an error either of both may be there."""
        naming.check_meta_name(name)
        with self._writing:
            self._check_writable()
            self._commits.write(self._layout.meta / name, value)

    def close(self) -> None:
        """Save the index and release the lock, after the commit that is under way."""
        with self._writing:
            if not self._is_closed and os.getpid() == self._process:
                self._kept.close(is_settled=not self._unsettled)
            self._is_closed = True
            self._lock.release()
