# SPDX-License-Identifier: MIT
"""A key store and use counters that fail when a test has planned it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hsm_core.errors import OutcomeUnknownError, StoreUnavailableError
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
    UseCounters,
)
from hsm_core.testing.faults import Faults

__all__ = [
    "FaultyKeyStore",
    "FaultyUseCounters",
]


class FaultyKeyStore:
    """A `KeyStore` whose calls fail when a test has planned it."""

    def __init__(self, store: KeyStore, faults: Faults) -> None:
        self._store = store
        self._faults = faults
        self._is_unsettled = False

    def _strike(self, call: str) -> None:
        if self._is_unsettled:
            raise StoreUnavailableError
        self._faults.strike(call)

    @property
    def available(self) -> bool:
        """See `KeyStore.available`."""
        return not self._is_unsettled and self._store.available

    @property
    def is_remote(self) -> bool:
        """See `KeyStore.is_remote`."""
        return self._store.is_remote

    def reopen(self) -> None:
        """See `KeyStore.reopen`."""
        self._faults.strike("store.reopen")
        self._store.reopen()
        self._is_unsettled = False

    def get(self, key_id: KeyId, /) -> StoredKey:
        """See `KeyStore.get`."""
        self._strike("store.get")
        return self._store.get(key_id)

    def get_blob(self, key_id: KeyId, version: int, /) -> bytes | None:
        """See `KeyStore.get_blob`."""
        self._strike("store.get_blob")
        return self._store.get_blob(key_id, version)

    def commit(self, change: KeyChange, /) -> None:
        """See `KeyStore.commit`."""
        self._strike("store.commit")
        made = self._faults.take_unknown_commit()
        if made is not False:
            self._store.commit(change)
        if made is not None:
            self._is_unsettled = True
            raise OutcomeUnknownError(
                "It is not known whether the change was made.",
                operation_id=change.operation_id,
            )

    def entry(self, reference: str, /) -> IndexEntry | None:
        """See `KeyStore.entry`."""
        self._strike("store.entry")
        return self._store.entry(reference)

    def find(self, query: IndexQuery, /) -> IndexPage:
        """See `KeyStore.find`."""
        self._strike("store.find")
        return self._store.find(query)

    def find_operation(self, operation_id: str, /) -> OperationMark | None:
        """See `KeyStore.find_operation`."""
        self._strike("store.find_operation")
        return self._store.find_operation(operation_id)

    def abort(self, operation_id: str, /) -> None:
        """See `KeyStore.abort`."""
        self._strike("store.abort")
        self._store.abort(operation_id)

    def scan(self) -> Iterator[StoredKey]:
        """See `KeyStore.scan`."""
        self._strike("store.scan")
        return self._store.scan()

    def digests(self, bucket: int | None = None, /) -> Iterator[KeyDigest]:
        """See `KeyStore.digests`."""
        self._strike("store.digests")
        return self._store.digests(bucket)

    def refresh(self, key_id: KeyId, /) -> IndexEntry | None:
        """See `KeyStore.refresh`."""
        self._strike("store.refresh")
        return self._store.refresh(key_id)

    def correct(self, entry: IndexEntry, /) -> None:
        """See `KeyStore.correct`."""
        self._strike("store.correct")
        self._store.correct(entry)

    def rebuild(self) -> None:
        """See `KeyStore.rebuild`."""
        self._strike("store.rebuild")
        self._store.rebuild()

    def read_account(self) -> StoreAccount | None:
        """See `KeyStore.read_account`."""
        self._strike("store.read_account")
        return self._store.read_account()

    def write_account(self, account: StoreAccount, /) -> None:
        """See `KeyStore.write_account`."""
        self._strike("store.write_account")
        self._store.write_account(account)

    def reindex(self, entries: Sequence[IndexEntry], /) -> None:
        """See `KeyStore.reindex`."""
        self._strike("store.reindex")
        self._store.reindex(entries)

    def discard_blobs(self, key_id: KeyId, versions: Sequence[int], /) -> None:
        """See `KeyStore.discard_blobs`."""
        self._strike("store.discard_blobs")
        self._store.discard_blobs(key_id, versions)

    def read_meta(self, name: str, /) -> bytes | None:
        """See `KeyStore.read_meta`."""
        self._strike("store.read_meta")
        return self._store.read_meta(name)

    def write_meta(self, name: str, value: bytes, /) -> None:
        """See `KeyStore.write_meta`."""
        self._strike("store.write_meta")
        self._store.write_meta(name, value)

    def close(self) -> None:
        """See `KeyStore.close`."""
        self._store.close()


class FaultyUseCounters:
    """A `UseCounters` whose calls fail when a test has planned it."""

    def __init__(self, counters: UseCounters, faults: Faults) -> None:
        self._counters = counters
        self._faults = faults

    def get(self, material_id: str, /) -> bytes | None:
        """See `UseCounters.get`."""
        self._faults.strike("counters.get")
        return self._counters.get(material_id)

    def put(self, material_id: str, value: bytes, /) -> None:
        """See `UseCounters.put`."""
        self._faults.strike("counters.put")
        self._counters.put(material_id, value)

    def put_first(self, material_id: str, value: bytes, /) -> None:
        """See `UseCounters.put_first`; it fails as `put` does."""
        self._faults.strike("counters.put")
        self._counters.put_first(material_id, value)

    def discard(self, material_id: str, /) -> None:
        """See `UseCounters.discard`."""
        self._faults.strike("counters.discard")
        self._counters.discard(material_id)

    def material_ids(self) -> Sequence[str]:
        """See `UseCounters.material_ids`."""
        self._faults.strike("counters.material_ids")
        return self._counters.material_ids()
