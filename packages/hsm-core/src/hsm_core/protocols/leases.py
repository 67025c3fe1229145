# SPDX-License-Identifier: MIT
"""Leases: exclusive, expiring ownership of names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

__all__ = ["Lease", "Leases"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Lease:
    """
    Lease: exclusive ownership of a name until it expires.

    Attributes:
        epoch: Fencing number from 1; increases with each new holder, and when a holder
            acquires the lease again.
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
