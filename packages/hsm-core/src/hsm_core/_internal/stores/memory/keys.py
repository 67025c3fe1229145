# SPDX-License-Identifier: MIT
"""Key store in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hsm_core._internal.keyring.documents import read_index
from hsm_core._internal.stores.index import KeyIndex
from hsm_core._internal.stores.memory.opening import InMemory
from hsm_core._internal.stores.naming import (
    check_change,
    check_meta_name,
    check_operation_id,
    check_versions,
)
from hsm_core.errors import ConflictError, KeyNotFoundError
from hsm_core.model import KeyId
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


class MemoryKeyStore(InMemory, KeyStore):
    """Documents and blobs in dictionaries, under one lock."""

    def __init__(self) -> None:
        super().__init__("key store")
        self._index = KeyIndex()
        self._documents: dict[KeyId, bytes] = {}
        self._blobs: dict[tuple[KeyId, int], bytes] = {}
        self._meta: dict[str, bytes] = {}

    def get(self, key_id: KeyId, /) -> StoredKey:
        """Return a key's document; see `KeyStore.get`."""
        with self._lock:
            self._check_open()
            if key_id not in self._documents:
                raise KeyNotFoundError
            return StoredKey(key_id, self._documents[key_id])

    def get_blob(self, key_id: KeyId, version: int, /) -> bytes | None:
        """Return the sealed blob of a version, or None if there is none."""
        with self._lock:
            self._check_open()
            return self._blobs.get((key_id, version))

    def commit(self, change: KeyChange, /) -> None:
        """Make one change; see `KeyStore.commit`."""
        check_change(change)
        key_id = change.entry.key_id
        with self._lock:
            self._check_open()
            self._index.check(change)
            for version in change.blobs:
                if (key_id, version) in self._blobs:
                    raise ConflictError(
                        f"The sealed blob of version {version} is immutable and "
                        "can't be replaced."
                    )
            for version, blob in change.blobs.items():
                self._blobs[key_id, version] = blob
            self._documents[key_id] = change.document
            self._index.put(change.entry)
            for version in change.removed_blobs:
                self._blobs.pop((key_id, version), None)

    def entry(self, reference: str, /) -> IndexEntry | None:
        """Return the index entry of a key by id, or by name if not destroyed."""
        with self._lock:
            self._check_open()
            return self._index.entry(reference)

    def find(self, query: IndexQuery, /) -> IndexPage:
        """Return a page of the index."""
        with self._lock:
            self._check_open()
            return self._index.find(query)

    def find_operation(self, operation_id: str, /) -> OperationMark | None:
        """Return where an operation id stands."""
        with self._lock:
            self._check_open()
            return self._index.find_operation(operation_id)

    def abort(self, operation_id: str, /) -> None:
        """Mark an operation id as aborted; see `KeyStore.abort`."""
        check_operation_id(operation_id)
        with self._lock:
            self._check_open()
            self._index.check_abort(operation_id)
            self._index.abort(operation_id)

    def scan(self) -> Iterator[StoredKey]:
        """Return every key that was there when the walk began."""
        with self._lock:
            self._check_open()
            key_ids = self._index.key_ids()
        for key_id in key_ids:
            yield self.get(key_id)

    def digests(self, bucket: int | None = None, /) -> Iterator[KeyDigest]:
        """Return what the index says of all keys, or of those of one bucket."""
        with self._lock:
            self._check_open()
            found = self._index.digests(bucket)
        yield from found

    def refresh(self, key_id: KeyId, /) -> IndexEntry | None:
        """Read a key's document again; see `KeyStore.refresh`."""
        with self._lock:
            self._check_open()
            stored = self._documents.get(key_id)
            if stored is None:
                self._index.remove(key_id)
                return None
            entry = read_index(key_id, stored)
            self._index.put(entry)
            return entry

    def correct(self, entry: IndexEntry, /) -> None:
        """Put the index right for a key; see `KeyStore.correct`."""
        with self._lock:
            self._check_open()
            if entry.key_id in self._index:
                self._index.put(entry)

    def rebuild(self) -> None:
        """Rebuild the index from all documents."""
        with self._lock:
            self._check_open()
            self._index.replace(read_index(*item) for item in self._documents.items())

    def read_account(self) -> None:
        """Return nothing: no account is kept here."""
        with self._lock:
            self._check_open()

    def write_account(self, account: StoreAccount, /) -> None:
        """Do nothing: no account is kept here."""
        with self._lock:
            self._check_open()

    def reindex(self, entries: Sequence[IndexEntry], /) -> None:
        """Replace the index; see `KeyStore.reindex`."""
        with self._lock:
            self._check_open()
            self._index.replace(entries)

    def discard_blobs(self, key_id: KeyId, versions: Sequence[int], /) -> None:
        """Delete blobs of destroyed versions; there are none here after a crash."""
        check_versions(key_id, versions)
        with self._lock:
            self._check_open()
            for version in versions:
                self._blobs.pop((key_id, version), None)

    def read_meta(self, name: str, /) -> bytes | None:
        """Return a small named value."""
        check_meta_name(name)
        with self._lock:
            self._check_open()
            return self._meta.get(name)

    def write_meta(self, name: str, value: bytes, /) -> None:
        """Replace a small named value."""
        check_meta_name(name)
        with self._lock:
            self._check_open()
            self._meta[name] = value
