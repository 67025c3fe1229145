# SPDX-License-Identifier: MIT
"""Key store interface: documents, sealed blobs and their index."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

import msgspec

from hsm_core.model import KeyFilter, KeyId
from hsm_core.protocols.policy import EVERY_KEY, KeyScope
from hsm_core.protocols.stores import UseCounters

__all__ = [
    "BUCKETS",
    "AccountChange",
    "IndexEntry",
    "IndexPage",
    "IndexQuery",
    "KeyChange",
    "KeyDigest",
    "KeyStore",
    "KeyStoreOpener",
    "OpenedStore",
    "OperationMark",
    "StoreAccount",
    "StoredKey",
    "bucket_of",
]


class IndexEntry(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a store may index of a key.

    It is read from the document without trusting it: listings are narrowed by it, and
    every document is authenticated before anything is said of the key.

    Attributes:
        created_at: Microseconds since 1970; with *key_id* it gives the order.
        operations: Ids of the operations that this document remembers.
        digest: SHA-256 of the document, hex.
    """

    key_id: KeyId
    created_at: int
    name: str
    algorithm: str
    state: str
    tags: frozenset[str]
    generation: int
    operations: tuple[str, ...] = ()
    digest: str = ""
    owner: str = ""
    usages: frozenset[str] = frozenset()

    def mentions(self, search: str) -> bool:
        """Return whether it holds what is searched for; see `KeyFilter.search`."""
        # The lower case of bytes is that of ASCII, which SQLite has too.
        wanted = search.encode().lower()
        return self.key_id.encode().startswith(wanted) or any(
            wanted in text.encode().lower()
            for text in (self.name, self.owner, *self.tags)
        )


class StoredKey(msgspec.Struct, frozen=True):
    """
    A key document as it lies in the store: bytes, not trusted.

    Attributes:
        is_listed: False if a scan has found that not all leads to the key that should
            by its index entry: a name, an operation id, a place in a listing.
    """

    key_id: KeyId
    document: bytes
    is_listed: bool = True


BUCKETS: Final = 4096
"""Number of buckets; the first three hex digits of a key ID name its bucket."""


def bucket_of(key_id: str) -> int:
    """Return the bucket of a key, from 0 to `BUCKETS` - 1."""
    return int(key_id[:3], 16)


class KeyDigest(msgspec.Struct, frozen=True):
    """What the index says of a key: generation and digest of its document."""

    key_id: KeyId
    generation: int
    digest: str


class AccountChange(msgspec.Struct, frozen=True):
    """
    What the HSM counts of a store, as it is after a commit.

    Attributes:
        bucket: Bucket of the key that is changed.
        value: Its new sum, 32 bytes.
        seal: Authenticates all sums; opaque.
    """

    bucket: int
    value: bytes
    seal: bytes


class StoreAccount(msgspec.Struct, frozen=True):
    """
    What the HSM counts of a store: one sum of 32 bytes for each bucket, and a seal.

    Nothing of it is trusted before the seal is checked.
    """

    values: tuple[bytes, ...]
    seal: bytes


class KeyChange(msgspec.Struct, frozen=True, kw_only=True):
    """
    One mutation of one key.

    Attributes:
        entry: Index facts of the new document.
        document: The new document.
        expected_generation: Generation it was prepared on; 0 for a new key.
        expected_digest: SHA-256 of the document it was prepared on, hex, for a store
            whose changes other nodes follow; empty for a new key.
        operation_id: Must be new to the store.
        blobs: Sealed blobs of new versions, by version.
        removed_blobs: Versions whose blobs are deleted after the commit.
        account: Returns what is kept with the document by a store that keeps an
            account. Such a store calls it within its transaction, while nobody else
            changes the account, and again if it repeats the transaction.
    """

    entry: IndexEntry
    document: bytes
    expected_generation: int
    operation_id: str
    blobs: Mapping[int, bytes] = msgspec.field(default_factory=dict)
    removed_blobs: tuple[int, ...] = ()
    expected_digest: str = ""
    account: Callable[[], AccountChange] | None = None


class OperationMark(msgspec.Struct, frozen=True):
    """Where an operation id was found: in a key's document, or as aborted."""

    key_id: KeyId | None
    aborted: bool


class IndexQuery(msgspec.Struct, frozen=True, kw_only=True):
    """
    A page of the index, newest key first (descending created_at, key_id).

    Attributes:
        after: Order of the last key of the page before, or None.
        offset: How many to skip; 0 with *after*.
        scope: Keys that it leaves out are neither shown nor counted.
    """

    filter: KeyFilter
    limit: int
    offset: int = 0
    after: tuple[int, str] | None = None
    scope: KeyScope = EVERY_KEY

    @property
    def is_walk(self) -> bool:
        """Whether keys must be looked at one by one, with `shows`."""
        return bool(self.filter.search) or not self.scope.is_everything

    def shows(self, entry: IndexEntry) -> bool:
        """Return whether a key is in the scope, and is what is searched for."""
        search = self.filter.search
        return (not search or entry.mentions(search)) and self.scope.shows(entry)


class IndexPage(msgspec.Struct, frozen=True):
    """
    Keys of a page, and how many there are over all pages.

    Attributes:
        keys: The order of each key: its created_at and its id.
    """

    keys: tuple[tuple[int, KeyId], ...]
    total: int


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

    def stage(
        self, key_id: KeyId, document: bytes, blobs: Mapping[int, bytes], /
    ) -> None:
        """
        Write a new key ahead of its commit, durably and where nobody finds it.

        Called while the intent of the change becomes durable, so that the commit has
        less to wait for. A store that gains nothing by it does nothing.

        Args:
            key_id: Of the new key.

            document: That of the change to come.

            blobs: Sealed blobs by version, those of the change.

        Raises:
            StorageFullError: There is no room.
            StoreUnavailableError: It can't be written; there is no such key.
        """
        ...

    def discard_staged(self, key_id: KeyId, /) -> None:
        """Remove what `stage` wrote and no commit took; the next start does it too."""
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

    def create_meta(self, name: str, value: bytes, /) -> bytes:
        """
        Store a small named value unless there is one; return what is there then.

        A store that several nodes write lets one of them have it.
        """
        found = self.read_meta(name)
        if found is None:
            self.write_meta(name, value)
            return value
        return found

    def close(self) -> None:
        """Release the lock; later calls raise StoreUnavailableError."""
        ...


class OpenedStore(msgspec.Struct, frozen=True):
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
