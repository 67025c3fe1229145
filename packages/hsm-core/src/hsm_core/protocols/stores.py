# SPDX-License-Identifier: MIT
"""Store interfaces: approvals, use counters, leases, remote vaults."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import msgspec

from hsm_core.model import ApprovalState

__all__ = [
    "ABSENT",
    "ApprovalChange",
    "ApprovalEntry",
    "ApprovalQuery",
    "ApprovalStore",
    "ApprovalStoreOpener",
    "Lease",
    "Leases",
    "RemoteKeyVault",
    "UseCounters",
    "VaultObject",
    "VaultOpener",
]


class ApprovalEntry(msgspec.Struct, frozen=True, kw_only=True):
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


class ApprovalChange(msgspec.Struct, frozen=True):
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


class ApprovalQuery(msgspec.Struct, frozen=True, kw_only=True):
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


class UseCounters(Protocol):
    """
    Where the counters of key materials lie: small values by material id.

    Nothing in it is trusted: values are authenticated by who writes them.
    Implementers promise that `put` and `replace` are atomic, and durable when they
    return. Safe for many threads.
    """

    is_shared: bool = False
    """Whether other nodes of a cluster change the values meanwhile."""

    def get(self, material_id: str, /) -> bytes | None:
        """
        Return the value of a material, or None if there is none.

        Raises:
            StoreUnavailableError: It can't be read.
        """
        ...

    def put(self, material_id: str, value: bytes, /) -> None:
        """
        Replace the value of a material.

        Raises:
            StorageFullError: There is no room; the old value is still there.
            StoreUnavailableError: It can't be written.
        """
        ...

    def replace(self, material_id: str, before: bytes | None, after: bytes, /) -> bool:
        """
        Replace the value of a material if nobody else has changed it.

        Without other nodes nobody has.

        Args:
            material_id: The material.

            before: The value that was read or stored last; None if there was none.

            after: The value to store.

        Returns:
            Whether it was replaced.

        Raises:
            StorageFullError: There is no room; the old value is still there.
            StoreUnavailableError: It can't be written; it may have been.
        """
        self.put(material_id, after)
        return True

    def put_first(self, material_id: str, value: bytes, /) -> None:
        """
        Store the first value of a material whose key has not been committed yet.

        It may become durable later than when this returns, but not later than the
        next commit of the key store.

        Raises:
            StorageFullError: There is no room.
            StoreUnavailableError: It can't be written.
        """
        self.put(material_id, value)

    def discard(self, material_id: str, /) -> None:
        """
        Delete the value of a material that was destroyed, if there is one.

        Raises:
            StoreUnavailableError: It can't be deleted.
        """
        ...

    def material_ids(self) -> Sequence[str]:
        """
        Return every material that has a value; for start-up, not for requests.

        Raises:
            StoreUnavailableError: They can't be read.
        """
        ...


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """
    Lease: exclusive ownership of a name until it expires.

    Attributes:
        epoch: Fencing number from 1; increases by one with each new holder, and when a
            holder acquires the lease again, also after it expired.
        expires_at: Microseconds since 1970.
    """

    name: str
    holder: str
    epoch: int
    expires_at: int


class Leases(Protocol):
    """
    Lease service.

    Implementers promise: of many who ask at once one gets the name, and each change is
    durable when it returns. A holder must stop what it does under a lease before
    *expires_at*, by its own clock. Safe for many threads.
    """

    def acquire(self, name: str, holder: str, seconds: float, /) -> Lease:
        """
        Take a name that nobody has, or whose lease has expired.

        Args:
            name: 1 to 64 lower-case letters, digits, dots and hyphens, a letter first.

            holder: 1 to 128 visible ASCII characters.

            seconds: For how long.

        Raises:
            LeaseHeldError: Another holder, or this one, has it until ``expires_at``.
            InvalidInputError: *name* or *holder* is of another form.
            StoreUnavailableError: It can't be told or written.
        """
        ...

    def renew(self, lease: Lease, seconds: float, /) -> Lease:
        """
        Make a lease last for so long from now; its epoch stays.

        Raises:
            LeaseLostError: It was released, has expired or has gone to another.
            StoreUnavailableError: It can't be told or written.
        """
        ...

    def release(self, lease: Lease, /) -> None:
        """
        Give a lease up; one that is lost already stays so.

        Raises:
            StoreUnavailableError: It can't be written; it ends when it expires.
        """
        ...


ABSENT = ""
"""Expected version of a put that must create the object."""


class VaultObject(msgspec.Struct, frozen=True):
    """
    An object as it is now.

    Attributes:
        tag: Changes whenever the content does; never empty (an ETag, RFC 9110 8.8.3).
    """

    data: bytes
    tag: str


@runtime_checkable
class RemoteKeyVault(Protocol):
    """
    Opaque objects by name: up to 200 of ``a-z 0-9 . _ - /``, a letter or digit first.

    Implementers promise: `put` is atomic, durable when it returns, and seen by every
    `get` after it. A list may lag behind. Safe for many threads.

    Any method may raise `StoreUnavailableError`; a `put` or `delete` that does may have
    been done nevertheless, or may be later.
    """

    def get(self, name: str, /) -> VaultObject | None:
        """Return an object, or None if there is none; never an older one."""
        ...

    def put(self, name: str, data: bytes, /, *, expected: str | None = None) -> str:
        """
        Store an object, and return its new tag.

        Args:
            name: Its name.

            data: Up to 17 MiB.

            expected: The tag that it must have now, or `ABSENT`; None replaces whatever
                is there.

        Raises:
            VaultConflictError: It has another tag, or none; nothing was changed.
            StorageFullError: There is no room; nothing was changed.
        """
        ...

    def list(self, prefix: str, /, *, after: str = "", limit: int = 1000) -> list[str]:
        """
        Return names that begin with *prefix*, in ascending order of their characters.

        Args:
            prefix: May be empty.

            after: Only names after this one.

            limit: At most so many; fewer mean that there are no more.
        """
        ...

    def delete(self, name: str, /) -> None:
        """Delete an object, if there is one."""
        ...

    def close(self) -> None:
        """Release connections."""
        ...


class VaultOpener(Protocol):
    """
    What an entry point of the group ``hsm_core.vaults`` is: it opens a vault.

    The entry point's name is the scheme, so that ``--key-store scheme:rest`` finds it.
    """

    def __call__(self, location: str, /) -> RemoteKeyVault:
        """
        Open the vault at a place.

        Args:
            location: What follows the scheme and its colon; its form is the opener's.

        Raises:
            ConfigurationError: The place has no such form, or can't be used.
        """
        ...
