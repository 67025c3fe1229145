# SPDX-License-Identifier: MIT
"""Audit log pruning: one step of a periodic job."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Final

from hsm_core.errors import LeaseHeldError, StoreUnavailableError
from hsm_core.model import PruneDetail
from hsm_core.protocols import AuditLog, Clock, Leases

LEASE: Final = "audit-retention"
"""Lease held while the audit log is pruned."""

_LEASE_SECONDS: Final = 3600.0
_DAY: Final = 24 * 3600 * 1_000_000


def prune_trail(
    audit: AuditLog,
    clock: Clock,
    days: int,
    policy: str = "",
    *,
    leases: Leases | None = None,
    holder: str = "",
    before: Callable[[], None] = lambda: None,
) -> PruneDetail | None:
    """
    Remove the records of a trail that are older than so many days.

    Args:
        audit: The trail.

        clock: Says what time it is now.

        days: Age at which a record goes; 0 keeps them all.

        policy: Stands in the record of the prune; by default the rule in words.

        leases: Where several processes may do this, so that one does.

        holder: Who takes the lease.

        before: Called before records are removed.

    Returns:
        What was recorded; None if nothing was removed, or another does it just now.

    Raises:
        AuditTamperedError: A record that would be removed is bad; none was.
        AuditUnavailableError: The trail can't be read or written, or a removal failed,
            which the next time finishes.
        StoreUnavailableError: Leases can't be told.
    """
    if not days:
        return None
    lease = None
    if leases is not None:
        try:
            lease = leases.acquire(LEASE, holder, _LEASE_SECONDS)
        except LeaseHeldError:
            return None
    try:
        end = audit.prunable(clock.now() - days * _DAY)
        if end <= audit.first_seq:
            return None
        before()
        return audit.prune(end, policy or f"records older than {days} days")
    finally:
        if leases is not None and lease is not None:
            with suppress(StoreUnavailableError):
                leases.release(lease)
