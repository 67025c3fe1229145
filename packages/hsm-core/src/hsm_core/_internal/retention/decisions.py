# SPDX-License-Identifier: MIT
"""Purge decisions: approval requests, and pauses until a separate approval."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

import msgspec

from hsm_core._internal.handlers.destruction import AllowPurges
from hsm_core._internal.keyring.versions import DAY
from hsm_core._internal.policy.facts import SystemPrincipal, system_caller
from hsm_core._internal.retention.state import (
    LOST,
    Allowance,
    LedgerAnchor,
    Pause,
    StateFile,
)
from hsm_core._internal.time.clock_guard import ClockJumpGuard
from hsm_core.errors import ApprovalNotFoundError
from hsm_core.model import Approval, ApprovalState
from hsm_core.operations import Operation
from hsm_core.protocols import Request

if TYPE_CHECKING:
    from hsm_core._internal.pipeline.authorisation import ApprovalDesk

_MOST: Final = 2000
_PACKED: Final = msgspec.msgpack.Encoder(order="deterministic")
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

_ALLOWED_FOR: Final = 7 * DAY


def granted_at(approval: Approval) -> int:
    """Return the time of the last valid grant; 0 if there is none."""
    return max((d.at for d in approval.decisions if d.counts), default=0)


class NoApprovalRequiredError(Exception):
    """The policy requires no approval, and without one nothing is purged."""


class Consent(StrEnum):
    """State of a decision."""

    GRANTED = "granted"
    ASKED = "asked"
    REFUSED = "refused"


class PurgeDecision(msgspec.Struct, frozen=True):
    """State of a decision, and its approval."""

    consent: Consent
    approval: Approval


class PurgeDecisions:
    """
    Opens approval requests for purges, and tracks the newest one of each operation.

    Args:
        requests: Opens and finds approval requests.

        file: Stores the newest request of each operation.

        grace_seconds: How long a purge waits after it was approved.

        interval_seconds: Time between sweeps.
    """

    def __init__(
        self,
        requests: ApprovalDesk,
        file: StateFile,
        grace_seconds: int,
        interval_seconds: int,
    ) -> None:
        self._requests = requests
        self._file = file
        self._wait = grace_seconds + interval_seconds
        self._life = _ANSWER_SECONDS + self._wait + _SPARE_SECONDS

    def look(self, operation: Operation[Any], now: int) -> PurgeDecision | None:
        """
        Return the decision; None if a request should be opened.

        Raises:
            HSMError: It can't be told now, or is not authentic.
        """
        found = self._newest(operation)
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

    def _newest(self, operation: Operation[Any]) -> Approval | None:
        known = self._file.state.asked.get(_name(operation))
        if known is not None:
            try:
                return self._requests.state_of(known)
            except ApprovalNotFoundError:
                pass  # It was pruned.
        found = self._requests.find(_CALLER, operation)
        if found is not None:
            self._remember(operation, found)
        return found

    def ask(self, operation: Operation[Any]) -> PurgeDecision:
        """
        Open a request, and return its decision so far.

        Raises:
            NoApprovalRequiredError: The policy requires no approval for this.
            HSMError: It can't be opened now.
        """
        found = self._requests.request(_CALLER, operation, minimum_seconds=self._life)
        if found is None:
            raise NoApprovalRequiredError
        self._remember(operation, found)
        granted = found.state is ApprovalState.GRANTED
        return PurgeDecision(Consent.GRANTED if granted else Consent.ASKED, found)

    def forget(self, operation: Operation[Any]) -> None:
        """Forget the decision about a completed operation."""
        asked = dict(self._file.state.asked)
        if asked.pop(_name(operation), None) is not None:
            self._put(asked)

    def _remember(self, operation: Operation[Any], approval: Approval) -> None:
        asked, name = dict(self._file.state.asked), _name(operation)
        if asked.get(name) == approval.approval_id:
            return
        asked.pop(name, None)
        asked[name] = approval.approval_id
        while len(asked) > _MOST:
            del asked[next(iter(asked))]
        self._put(asked)

    def _put(self, asked: dict[str, str]) -> None:
        self._file.put(msgspec.structs.replace(self._file.state, asked=asked))

    def outlives(self, approval: Approval, now: int) -> bool:
        """Return whether an approval can still be used when its grace is over."""
        return approval.expires_at > now + self._wait * 1_000_000


def _name(operation: Operation[Any]) -> str:
    return hashlib.sha256(_PACKED.encode(operation)).hexdigest()[:32]


class Pauses:
    """
    Requests separate approvals for unusual conditions.

    Args:
        file: Stores requests and allowances.

        consents: Opens approval requests.

        execute: The pipeline, which consumes an approval.

        time: Time.

    Attributes:
        cause: Cause of the pause in the last sweep, or empty.
        approval_id: Approval request that would end the pause.
    """

    def __init__(
        self,
        file: StateFile,
        consents: PurgeDecisions,
        execute: Callable[[Request], Any],
        time: ClockJumpGuard,
    ) -> None:
        self._file = file
        self._consents = consents
        self._execute = execute
        self._time = time
        self._is_loss_allowed = False
        self.cause = ""
        self.approval_id = ""

    def begin(self) -> None:
        """Reset the result of the previous sweep."""
        self.cause = self.approval_id = ""

    def note(self, cause: str) -> None:
        """Note a cause that no approval can lift."""
        self.cause = self.cause or cause

    @property
    def jumps_allowed(self) -> int:
        """Clock jumps that ended before this instant count as time that has passed."""
        return self._file.state.jumps_allowed

    @property
    def allowed(self) -> int:
        """How many purges were allowed above the limit, and not done yet."""
        allowance = self._file.state.allowance
        if allowance is None or allowance.until < self._time.now():
            return 0
        return allowance.purges

    def consider_jumps(self, count: int) -> None:
        """Request that jumps count as time, if *count* materials wait for that."""
        if not count:
            self._drop("leap")
        elif self._is_allowed("leap", count):
            self._put(jumps_allowed=self._time.now())

    def may_purge(self, count: int, most: int) -> bool:
        """
        Return whether so many purges may be done now.

        Args:
            count: How many there would be.

            most: Number that needs no extra approval.
        """
        if not count:
            self._drop("limit")
            return False
        if self._find("state") is not None:
            if not self._is_allowed("state", count):
                return False
            self._is_loss_allowed = True
        if count <= max(most, self.allowed):
            return True
        if not self._is_allowed("limit", count):
            return False
        until = self._time.now() + _ALLOWED_FOR
        self._put(allowance=Allowance(purges=count, until=until))
        return False  # The next sweep finds all that may be purged.

    def notice_loss(self, known: LedgerAnchor | None) -> bool:
        """
        Start a pause if the stored state is lost; return whether it is.

        Args:
            known: The newest place of the ledger that the audit log names, of which the
                state then knows too.
        """
        if self._file.state.anchor is not None or known is None:
            return False
        if self._is_loss_allowed:
            self._put(anchor=known)
            return False
        if self._find("state") is None:
            self._put(pauses=(*self._file.state.pauses, LOST))
        self.note("state")
        return True

    def count_purge(self) -> None:
        """Take one purge from what was allowed above the limit."""
        allowance = self._file.state.allowance
        if allowance is None:
            return
        left = allowance.purges - 1
        self._put(
            allowance=Allowance(purges=left, until=allowance.until)
            if left > 0
            else None
        )

    def _is_allowed(self, cause: str, count: int) -> bool:
        """Return whether it is approved; open a request if there is none."""
        pause = self._find(cause)
        if pause is None:
            pause = Pause(cause=cause, count=count, since=self._time.now())
            self._put(pauses=(*self._file.state.pauses, pause))
        asked = AllowPurges(cause=cause, count=pause.count, since=pause.since)
        self.cause = self.cause or cause
        try:
            answer = self._consents.look(asked, self._time.now())
            answer = answer or self._consents.ask(asked)
        except NoApprovalRequiredError:
            return False
        self.approval_id = answer.approval.approval_id
        if answer.consent is not Consent.GRANTED:
            return False
        if answer.approval.state is not ApprovalState.GRANTED:
            return False
        self._execute(Request(_CALLER, asked))
        self._drop(cause)
        self.cause = self.approval_id = ""
        return True

    def _find(self, cause: str) -> Pause | None:
        return next((p for p in self._file.state.pauses if p.cause == cause), None)

    def _drop(self, cause: str) -> None:
        left = tuple(p for p in self._file.state.pauses if p.cause != cause)
        self._put(pauses=left)

    def _put(self, **changes: Any) -> None:
        self._file.put(msgspec.structs.replace(self._file.state, **changes))
