# SPDX-License-Identifier: MIT
"""State of servers that all nodes of a cluster share."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Protocol, runtime_checkable

import msgspec

__all__ = ["Failures", "SharedState", "SharedTrust"]


@runtime_checkable
class SharedState(Protocol):
    """
    Small values with an end, which all nodes of a cluster see; thread-safe.

    Values are sealed and bound to kind and name. The database can remove a value, or
    return a former one that was removed; it can neither read nor make one.

    Every method may raise `hsm_core.errors.StoreUnavailableError`, within two seconds
    without the database. An answer is that of all nodes: what was written or removed by
    one before, another finds.
    """

    def add(
        self,
        kind: str,
        name: str,
        value: bytes,
        expires_at: float,
        /,
        *,
        owner: str = "",
        most_of_owner: int = 0,
        most: int = 0,
    ) -> bool:
        """
        Add a value, unless the name is taken; return whether it was added.

        Args:
            kind: Namespace of names, such as ``session``.

            name: Name within the kind; a digest where it is a secret.

            value: At most 64 KiB.

            expires_at: Its end, in seconds since 1970. Expired values are removed at
                some time; whether one still counts is the caller's to decide.

            owner: Whom it belongs to.

            most_of_owner: Number of the owner's values to keep, with this one: those
                that expire first are removed. 0 keeps all.

            most: The same for all values of the kind.
        """
        ...

    def replace(self, kind: str, name: str, value: bytes, expires_at: float, /) -> bool:
        """Replace a value that is there; return whether it was."""
        ...

    def read(self, kind: str, name: str, /) -> bytes | None:
        """Return a value; None if there is none, or it was altered."""
        ...

    def remove(self, kind: str, name: str = "", /) -> None:
        """Remove a value if it is there; without a name, all of the kind."""
        ...

    @property
    def nodes_live(self) -> int:
        """Number of live nodes, as of a moment ago; at least 1, and never raises."""
        ...

    def count_failures(
        self, counts: Mapping[str, int], /, *, free: int, forgotten: int, recent: int
    ) -> Mapping[str, Failures]:
        """
        Add failures that have happened here, and return whose are too many.

        They are not sealed, and need not survive a failure of the database.

        Args:
            counts: Number of new failures by name; at most 1,000 names.

            free: How many a name may have.

            forgotten: Seconds without a failure after which a name has none.

            recent: Seconds since the last failure of those that are returned.

        Returns:
            The names with more failures than that on all nodes, of which at most the
            1,000 that failed last.
        """
        ...


class Failures(msgspec.Struct, frozen=True):
    """
    Failures of a name.

    Attributes:
        count: Their number.
        age_seconds: Seconds since the last one, by the database's clock.
    """

    count: int
    age_seconds: float


class SharedTrust(Protocol):
    """
    People, keys and certificates that no node of a cluster accepts; thread-safe.

    Each node trusts what its own files name. Names are digests or contain no secret;
    the database has keyed digests of them.
    """

    def declare(
        self,
        kind: str,
        /,
        *,
        trusted: Collection[str] = (),
        revoked: Collection[str] = (),
    ) -> None:
        """
        State what the files of this node name now.

        What they named before and no longer trust is withdrawn from all nodes, for
        requests that they receive after the return. What they newly trust is restored,
        unless it is an older content that the cluster knows already. The first call of
        a process compares with what this node declared last. It withdraws nothing if
        the cluster has known the content for longer than that one or *trusted* is
        empty, and restores nothing.

        Args:
            kind: Namespace of names, such as ``people``.

            trusted: All names that the files trust.

            revoked: All names that they revoke.

        Raises:
            HSMError: It can't be stated now; to be done again.
        """
        ...

    def withdrawn(self, kind: str, names: Collection[str], /) -> frozenset[str]:
        """Return those names of a kind that were withdrawn, on whichever node."""
        ...

    def on_change(self, call: Callable[[], None], /) -> None:
        """
        Call a function when something was withdrawn or restored, on any thread.

        What it puts in force is in force for every request that this node receives
        after `declare` has returned on another. It waits for nothing, and raises
        nothing.
        """
        ...
