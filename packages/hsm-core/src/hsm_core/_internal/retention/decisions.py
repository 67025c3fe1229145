# SPDX-License-Identifier: MIT
"""What people say to purges: who is asked, when again, and what counts."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from hsm_core._internal.keyring.purge_windows import DAY
from hsm_core._internal.policy.system_callers import SystemPrincipal, system_caller
from hsm_core._internal.retention.requests import Remembered
from hsm_core.model import Approval, ApprovalState
from hsm_core.operations import Operation

_CALLER: Final = system_caller(SystemPrincipal.RETENTION)
_ANSWER_SECONDS: Final = 14 * 86_400
"""For how long people may think about it."""

_SPARE_SECONDS: Final = 2 * 86_400
"""How long after its grace period a purge may still be done."""

_AGAIN: Final[dict[ApprovalState, int]] = {
    ApprovalState.DENIED: 30 * DAY,
    ApprovalState.CANCELLED: 30 * DAY,
    ApprovalState.EXPIRED: DAY,
    ApprovalState.CONSUMED: 0,
}
"""How long after an end nobody is asked the same again."""


class NobodyAskedError(Exception):
    """The policy demands no approval, and without one nothing is purged."""


class Consent(StrEnum):
    """What people say."""

    GRANTED = "granted"
    ASKED = "asked"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Answer:
    """What people say, and the approval that they say it by."""

    consent: Consent
    approval: Approval


class Consents:
    """
    Asks for consent and tells what became of it.

    Args:
        approvals: Where approvals are kept.

        grace_seconds: How long a purge waits after it was approved.

        interval_seconds: How often it is looked for.
    """

    def __init__(
        self, approvals: Remembered, grace_seconds: int, interval_seconds: int
    ) -> None:
        self._approvals = approvals
        self._wait = grace_seconds + interval_seconds
        self._life = _ANSWER_SECONDS + self._wait + _SPARE_SECONDS

    def look(self, operation: Operation[Any], now: int) -> Answer | None:
        """
        Return what people say; None if they should be asked.

        Raises:
            HSMError: It can't be told now.
        """
        found = self._approvals.newest(_CALLER, operation)
        if found is None:
            return None
        state = found.state
        if state in (ApprovalState.GRANTED, ApprovalState.RESERVED):
            return Answer(Consent.GRANTED, found)
        if state is ApprovalState.PENDING:
            return Answer(Consent.ASKED, found)
        ended_at = found.closed_at or found.expires_at
        if now < ended_at + _AGAIN[state]:
            return Answer(Consent.REFUSED, found)
        return None

    def ask(self, operation: Operation[Any]) -> Answer:
        """
        Ask, and return what is said already.

        Raises:
            NobodyAskedError: The policy demands no approval of this.
            HSMError: It can't be asked now.
        """
        found = self._approvals.ask(_CALLER, operation, self._life)
        if found is None:
            raise NobodyAskedError
        granted = found.state is ApprovalState.GRANTED
        return Answer(Consent.GRANTED if granted else Consent.ASKED, found)

    def forget(self, operation: Operation[Any]) -> None:
        """Forget what was said about something that is done."""
        self._approvals.forget(operation)

    def outlives(self, approval: Approval, now: int) -> bool:
        """Return whether an approval can still be used when its grace is over."""
        return approval.expires_at > now + self._wait * 1_000_000
