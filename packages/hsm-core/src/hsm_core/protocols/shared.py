# SPDX-License-Identifier: MIT
"""State of servers that all nodes of a cluster share."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

__all__ = ["SharedState"]


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
