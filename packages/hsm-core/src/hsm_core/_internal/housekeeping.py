# SPDX-License-Identifier: MIT
"""
What an HSM does for its trail and its approvals from time to time: retention, healing.

It has a thread of its own, because a long prune must not keep a key store from healing.
"""

from __future__ import annotations

from typing import Final

from hsm_core._internal.approvals import ApprovalRegister
from hsm_core._internal.approvals.retention import prune_approvals
from hsm_core._internal.audit.events import event_of
from hsm_core._internal.caretaker import Caretaker
from hsm_core._internal.retention import prune_trail
from hsm_core._internal.sealing import KeyRing
from hsm_core.protocols import ApprovalStore, AuditLog, Clock
from hsm_core.settings import Settings

__all__ = ["Housekeeping", "newest_time"]

_HEALING_SECONDS: Final = 1.0
_FIRST_SECONDS: Final = 5.0
"""How long after the start the first prune is; a start has other things to do."""


class Housekeeping:
    """
    Begins at once; to be stopped before trail and approvals are closed.

    Args:
        settings: How long records and approvals are kept.

        audit: The trail.

        approvals: Where approvals lie; closed at the end. None if there are none.

        ring: Authenticates approvals.

        clock: Time.

    Raises:
        StoreUnavailableError: The approvals can't be read.
    """

    def __init__(
        self,
        settings: Settings,
        audit: AuditLog,
        approvals: ApprovalStore | None,
        ring: KeyRing,
        clock: Clock,
    ) -> None:
        self._audit = audit
        self._approvals = approvals
        self._clock = clock
        self._trail_days = settings.trail_days
        self._approval_days = settings.approval_days
        self._register: ApprovalRegister | None = None
        if approvals is not None:
            floor = newest_time(audit)
            self._register = ApprovalRegister(
                approvals, ring.approval_mac, clock, floor=floor
            )
        self._caretaker = Caretaker()
        every = self._caretaker.every
        if self._trail_days:
            seconds = settings.audit_retention_interval_seconds
            every(seconds, self.prune_trail, first=_FIRST_SECONDS)
        if self._register is not None:
            every(_HEALING_SECONDS, self.heal_approvals)
            seconds = settings.approval_retention_interval_seconds
            if self._approval_days:
                every(seconds, self.prune_approvals, first=_FIRST_SECONDS)
        self._caretaker.start()

    def prune_trail(self) -> None:
        """Remove the records that are too old."""
        prune_trail(self._audit, self._clock, self._trail_days)

    def prune_approvals(self) -> None:
        """Remove the approvals that came to an end too long ago."""
        if self._register is not None:
            prune_approvals(self._register, self._approval_days)

    def heal_approvals(self) -> None:
        """Open their store again if a write to it has failed."""
        if self._approvals is not None and not self._approvals.available:
            self._approvals.reopen()

    def stop(self, timeout_seconds: float) -> None:
        """Begin nothing any more, wait for what runs, and close the approvals."""
        self._caretaker.stop(timeout_seconds)
        if self._approvals is not None:
            self._approvals.close()


def newest_time(audit: AuditLog) -> int:
    """Return the time of the newest record of a trail; 0 if there is none."""
    head = audit.head()
    lines = audit.lines(head.seq, 1) if head.seq >= 0 else []
    return event_of(lines[0], head.seq).time if lines else 0
