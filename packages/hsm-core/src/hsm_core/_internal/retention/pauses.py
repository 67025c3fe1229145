# SPDX-License-Identifier: MIT
"""Purge pauses: conditions that delay approved purges until they are approved again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from hsm_core._internal.handlers.internal_operations import AllowPurges
from hsm_core._internal.keyring.purge_windows import DAY
from hsm_core._internal.policy.system_callers import SystemPrincipal, system_caller
from hsm_core._internal.retention.decisions import (
    Consent,
    NoApprovalRequiredError,
    PurgeDecisions,
)
from hsm_core._internal.retention.state import (
    LOST,
    Allowance,
    LedgerAnchor,
    Pause,
    StateFile,
)
from hsm_core._internal.time.judged_time import RetentionTime
from hsm_core.model import ApprovalState
from hsm_core.protocols import Request

_CALLER: Final = system_caller(SystemPrincipal.RETENTION)
_ALLOWED_FOR: Final = 7 * DAY


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
        time: RetentionTime,
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
    def leaps_allowed(self) -> int:
        """Leaps that ended before this instant count as time that has passed."""
        return self._file.state.leaps_allowed

    @property
    def allowed(self) -> int:
        """How many purges were allowed above the limit, and not done yet."""
        allowance = self._file.state.allowance
        if allowance is None or allowance.until < self._time.wall():
            return 0
        return allowance.purges

    def consider_leap(self, count: int) -> None:
        """Request that jumps count as time, if *count* materials wait for that."""
        if not count:
            self._drop("leap")
        elif self._is_allowed("leap", count):
            self._put(leaps_allowed=self._time.wall())

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
        until = self._time.wall() + _ALLOWED_FOR
        self._put(allowance=Allowance(purges=count, until=until))
        return False  # The next sweep finds all that may be purged.

    def notice_loss(self, known: LedgerAnchor | None) -> bool:
        """
        Start a pause if the stored state is lost; return whether it is.

        Args:
            known: The newest place of the ledger that the trail names, of which the
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
            pause = Pause(cause=cause, count=count, since=self._time.wall())
            self._put(pauses=(*self._file.state.pauses, pause))
        asked = AllowPurges(cause=cause, count=pause.count, since=pause.since)
        self.cause = self.cause or cause
        try:
            answer = self._consents.look(asked, self._time.wall())
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
