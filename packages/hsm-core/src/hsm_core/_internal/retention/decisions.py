# SPDX-License-Identifier: MIT
"""Purge decisions: requests for approval, their renewal, and their state."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from hsm_core._internal.keyring.purge_windows import DAY
from hsm_core._internal.policy.system_callers import SystemPrincipal, system_caller
from hsm_core._internal.retention.requests import RememberedRequests
from hsm_core.model import Approval, ApprovalState
from hsm_core.operations import Operation

_CALLER: Final = system_caller(SystemPrincipal.RETENTION)
_ANSWER_SECONDS: Final = 14 * 86_400
"""Time for a decision."""

_SPARE_SECONDS: Final = 2 * 86_400
"""Time after the grace period in which a purge may still run."""

_AGAIN: Final[dict[ApprovalState, int]] = {
    ApprovalState.DENIED: 30 * DAY,
    ApprovalState.CANCELLED: 30 * DAY,
    ApprovalState.EXPIRED: DAY,
    ApprovalState.CONSUMED: 0,
}
"""Pause before the same request is opened again."""


class NoApprovalRequiredError(Exception):
    """The policy requires no approval, and without one nothing is purged."""


class Consent(StrEnum):
    """State of a decision."""

    GRANTED = "granted"
    ASKED = "asked"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class PurgeDecision:
    """State of a decision, and its approval."""

    consent: Consent
    approval: Approval


class PurgeDecisions:
    """
    Opens approval requests for purges and tracks their decisions.

    Args:
        approvals: Approval requests of the HSM.

        grace_seconds: How long a purge waits after it was approved.

        interval_seconds: Time between sweeps.
    """

    def __init__(
        self, approvals: RememberedRequests, grace_seconds: int, interval_seconds: int
    ) -> None:
        self._approvals = approvals
        self._wait = grace_seconds + interval_seconds
        self._life = _ANSWER_SECONDS + self._wait + _SPARE_SECONDS

    def look(self, operation: Operation[Any], now: int) -> PurgeDecision | None:
        """
        Return the decision; None if a request should be opened.

        Raises:
            HSMError: It can't be told now.
        """
        found = self._approvals.newest(_CALLER, operation)
        if found is None:
            return None
        state = found.state
        if state in (ApprovalState.GRANTED, ApprovalState.RESERVED):
            return PurgeDecision(Consent.GRANTED, found)
        if state is ApprovalState.PENDING:
            return PurgeDecision(Consent.ASKED, found)
        ended_at = found.closed_at or found.expires_at
        if now < ended_at + _AGAIN[state]:
            return PurgeDecision(Consent.REFUSED, found)
        return None

    def ask(self, operation: Operation[Any]) -> PurgeDecision:
        """
        Open a request, and return its decision so far.

        Raises:
            NobodyAskedError: The policy requires no approval for this.
            HSMError: It can't be asked now.
        """
        found = self._approvals.ask(_CALLER, operation, self._life)
        if found is None:
            raise NoApprovalRequiredError
        granted = found.state is ApprovalState.GRANTED
        return PurgeDecision(Consent.GRANTED if granted else Consent.ASKED, found)

    def forget(self, operation: Operation[Any]) -> None:
        """Forget the decision about a completed operation."""
        self._approvals.forget(operation)

    def outlives(self, approval: Approval, now: int) -> bool:
        """Return whether an approval can still be used when its grace is over."""
        return approval.expires_at > now + self._wait * 1_000_000
