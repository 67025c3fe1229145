# SPDX-License-Identifier: MIT
"""Approval store interface: authenticated approval records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from hsm_core.model import ApprovalState

__all__ = [
    "ApprovalChange",
    "ApprovalEntry",
    "ApprovalQuery",
    "ApprovalStore",
    "ApprovalStoreOpener",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalEntry:
    """
    Index entry of an approval; not trusted.

    Attributes:
        approval_id: A UUID in lower-case canonical form.
        generation: From 1; grows by one with every change.
        digest: Digest of the operation that it is for, hex.
        created_at: Microseconds since 1970; with *approval_id* it gives the order.
        closed_at: When it was denied, cancelled, consumed or expired; else 0.
    """

    approval_id: str
    generation: int
    state: ApprovalState
    requester: str
    digest: str
    created_at: int
    closed_at: int = 0


@dataclass(frozen=True, slots=True)
class ApprovalChange:
    """
    Change of an approval: a new record, or a new state.

    Attributes:
        entry: Its index facts; its generation is the expected one plus 1.
        record: Its stored form, up to 64 KiB.
        expected_generation: 0 for a new one.
    """

    entry: ApprovalEntry
    record: bytes
    expected_generation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalQuery:
    """
    A page of approvals, newest first (descending created_at, approval_id).

    Attributes:
        states: Empty for any.
        requester: Empty for any.
        digest: Empty for any.
        after: Order of the last one of the page before, or None.
    """

    states: frozenset[ApprovalState] = frozenset()
    requester: str = ""
    digest: str = ""
    limit: int = 100
    after: tuple[int, str] | None = None


@runtime_checkable
class ApprovalStore(Protocol):
    """
    Approval store; its content is not trusted.

    Implementers promise: `commit` is atomic, and durable when it returns; of many
    changes of one approval on the same generation one is made. Safe for many threads.
    Other processes are locked out while it is open. Whatever goes wrong underneath is
    a `StoreUnavailableError`, or an `IntegrityError` where a database is damaged.
    """

    @property
    def available(self) -> bool:
        """Whether it can be read and written, as far as is known."""
        ...

    def reopen(self) -> None:
        """After a failed write: make durable what is there; see `KeyStore.reopen`."""
        ...

    def get(self, approval_id: str, /) -> bytes | None:
        """
        Return the stored form of an approval, or None if there is none.

        It is empty where something else lies in its place.
        """
        ...

    def commit(self, change: ApprovalChange, /) -> None:
        """
        Apply one change atomically.

        Raises:
            GenerationConflictError: It is not at the expected generation.
            StorageFullError: There is no room; nothing was changed.
            StoreUnavailableError: Nothing was changed, unless it is an
                OutcomeUnknownError.
        """
        ...

    def find(self, query: ApprovalQuery, /) -> list[ApprovalEntry]:
        """Return a page of the index."""
        ...

    def approval_ids(self) -> Sequence[str]:
        """Return all ids, whatever lies there; for start-up and scrubbing."""
        ...

    def remove(self, approval_ids: Sequence[str], /) -> None:
        """Delete approvals, durably, where they are there."""
        ...

    def close(self) -> None:
        """Release the lock; later calls raise StoreUnavailableError."""
        ...


class ApprovalStoreOpener(Protocol):
    """Entry point of the group ``hsm_core.approval_stores``."""

    def __call__(self, location: str, /) -> ApprovalStore:
        """Open the store at a place; see `KeyStoreOpener`."""
        ...
