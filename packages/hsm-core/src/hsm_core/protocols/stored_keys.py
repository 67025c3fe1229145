# SPDX-License-Identifier: MIT
"""Data types of key stores: documents, changes, index, account."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from hsm_core.model import KeyFilter, KeyId
from hsm_core.protocols.scopes import EVERY_KEY, KeyScope

__all__ = [
    "BUCKETS",
    "AccountChange",
    "IndexEntry",
    "IndexPage",
    "IndexQuery",
    "KeyChange",
    "KeyDigest",
    "OperationMark",
    "StoreAccount",
    "StoredKey",
    "bucket_of",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexEntry:
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


@dataclass(frozen=True, slots=True)
class StoredKey:
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


@dataclass(frozen=True, slots=True)
class KeyDigest:
    """What the index says of a key: generation and digest of its document."""

    key_id: KeyId
    generation: int
    digest: str


@dataclass(frozen=True, slots=True)
class AccountChange:
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


@dataclass(frozen=True, slots=True)
class StoreAccount:
    """
    What the HSM counts of a store: one sum of 32 bytes for each bucket, and a seal.

    Nothing of it is trusted before the seal is checked.
    """

    values: tuple[bytes, ...]
    seal: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyChange:
    """
    One mutation of one key.

    Attributes:
        entry: Index facts of the new document.
        document: The new document.
        expected_generation: Generation it was prepared on; 0 for a new key.
        operation_id: Must be new to the store.
        blobs: Sealed blobs of new versions, by version.
        removed_blobs: Versions whose blobs are deleted after the commit.
        account: To be kept with the document, by a store that keeps an account.
    """

    entry: IndexEntry
    document: bytes
    expected_generation: int
    operation_id: str
    blobs: Mapping[int, bytes] = field(default_factory=dict)
    removed_blobs: tuple[int, ...] = ()
    account: AccountChange | None = None


@dataclass(frozen=True, slots=True)
class OperationMark:
    """Where an operation id was found: in a key's document, or as aborted."""

    key_id: KeyId | None
    aborted: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class IndexQuery:
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


@dataclass(frozen=True, slots=True)
class IndexPage:
    """
    Keys of a page, and how many there are over all pages.

    Attributes:
        keys: The order of each key: its created_at and its id.
    """

    keys: tuple[tuple[int, KeyId], ...]
    total: int
