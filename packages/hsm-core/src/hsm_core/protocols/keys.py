# SPDX-License-Identifier: MIT
"""Key store interface: documents, sealed blobs and their index."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from hsm_core.model import KeyId
from hsm_core.protocols.stored_keys import (
    IndexEntry,
    IndexPage,
    IndexQuery,
    KeyChange,
    KeyDigest,
    OperationMark,
    StoreAccount,
    StoredKey,
)
from hsm_core.protocols.uses import UseCounters

__all__ = [
    "KeyStore",
    "KeyStoreOpener",
    "OpenedStore",
]


class KeyStore(Protocol):
    """
    Key store; its content is not trusted.

    Implementers promise: `commit` is atomic and durable when it returns, and its only
    commit point is the document; blobs are immutable and durable before it. Every
    method is safe for many threads. Other processes are locked out while it is open.
    Whatever goes wrong underneath is a `StoreUnavailableError`, and never "not found".

    Where a failed write leaves nobody sure of what is stored, the store becomes
    unavailable: every method but `reopen` and `close` raises, until `reopen` succeeds.
    """

    @property
    def available(self) -> bool:
        """Whether it can be read and written, as far as is known."""
        ...

    @property
    def is_remote(self) -> bool:
        """
        Whether each read of a document or blob is a request over a network.

        Then listings are answered from documents in memory, and several reads are
        made side by side.
        """
        return False

    def reopen(self) -> None:
        """
        After a failed write: make durable what is really there, and read it again.

        A change whose outcome is unknown is then there or it is not. Where nothing
        failed, nothing happens.

        Raises:
            StoreUnavailableError: It still can't be; to be tried again later.
        """
        ...

    # Documents and blobs

    def get(self, key_id: KeyId, /) -> StoredKey:
        """
        Return a key's document.

        Raises:
            KeyNotFoundError: There is no such key.
            KeyTamperedError: The index knows it, and its document is gone.
        """
        ...

    def get_blob(self, key_id: KeyId, version: int, /) -> bytes | None:
        """Return the sealed blob of a version, or None if there is none."""
        ...

    def commit(self, change: KeyChange, /) -> None:
        """
        Apply one change atomically.

        Raises:
            GenerationConflictError: The key is not at the expected generation.
            NameTakenError: Another key, not destroyed, has this name.
            OperationAbortedError: The operation id was aborted, or used before.
            StorageFullError: There is no room; nothing was changed.
            StoreUnavailableError: Nothing was changed, unless it is an
                OutcomeUnknownError.
        """
        ...

    def discard_blobs(self, key_id: KeyId, versions: Sequence[int], /) -> None:
        """Delete blobs that a crash kept though their versions are destroyed."""
        ...

    def scan(self) -> Iterator[StoredKey]:
        """
        Return every key, wherever it is known from; for scrubbing, not for requests.

        One whose document is gone comes with an empty document.
        """
        ...

    # The index

    def entry(self, reference: str, /) -> IndexEntry | None:
        """Return the index entry of a key by id, or by name if not destroyed."""
        ...

    def find(self, query: IndexQuery, /) -> IndexPage:
        """Return a page of the index, without reading documents."""
        ...

    def digests(self, bucket: int | None = None, /) -> Iterator[KeyDigest]:
        """Return what the index says of all keys, or of those of one bucket."""
        ...

    def refresh(self, key_id: KeyId, /) -> IndexEntry | None:
        """
        Read a key's document again, put its index entry right, and return it.

        None, and no entry, if there is nothing stored of the key.
        """
        ...

    def correct(self, entry: IndexEntry, /) -> None:
        """
        Put the index right for a key that is there, with authenticated facts.

        After it everything leads to the key that should; but of two keys that claim one
        name, one that has it already keeps it.
        """
        ...

    def rebuild(self) -> None:
        """
        Rebuild the index from all documents; used at startup if the index is in doubt.

        A store whose index is committed with the documents may do nothing.
        """
        ...

    def reindex(self, entries: Sequence[IndexEntry], /) -> None:
        """
        Replace the index by these entries, of keys that are there.

        Of two entries that claim one name or operation the first has it.
        """
        ...

    # Operation ids

    def find_operation(self, operation_id: str, /) -> OperationMark | None:
        """Return where an operation id stands."""
        ...

    def abort(self, operation_id: str, /) -> None:
        """Mark an operation id as aborted, durably, so that a late commit fails."""
        ...

    # The rest

    def read_account(self) -> StoreAccount | None:
        """Return the account that was kept with the last commit; None if none is."""
        ...

    def write_account(self, account: StoreAccount, /) -> None:
        """Replace the account, durably, where the store keeps one."""
        ...

    def read_meta(self, name: str, /) -> bytes | None:
        """Return a small named value, such as the sealed key ring."""
        ...

    def write_meta(self, name: str, value: bytes, /) -> None:
        """Replace a small named value, atomically and durably."""
        ...

    def close(self) -> None:
        """Release the lock; later calls raise StoreUnavailableError."""
        ...


@dataclass(frozen=True, slots=True)
class OpenedStore:
    """
    A key store and the use counters that lie beside it.

    Closing the store closes the counters too.

    Attributes:
        backup: Copies all of it, in use, into a new file of mode 0600, durably; None
            where it can't be copied so. It calls what it is given once, when little is
            left to be copied; all that was committed until this returns must be in the
            copy.
    """

    keys: KeyStore
    uses: UseCounters
    backup: Callable[[Path, Callable[[], None]], None] | None = None


class KeyStoreOpener(Protocol):
    """
    Entry point of the group ``hsm_core.key_stores``, which opens a store.

    The entry point's name is the scheme, so that ``--key-store scheme:rest`` finds it.
    """

    def __call__(self, location: str, /) -> OpenedStore:
        """
        Open the store at a place.

        Args:
            location: What follows the scheme and its colon; its form is the opener's.

        Raises:
            ConfigurationError: The place has no such form, or can't be used.
            StoreLockedError: Another process has it open.
            StoreUnavailableError: It can't be read now.
        """
        ...
