# SPDX-License-Identifier: MIT
"""An approval in use: reserved for one operation, then used up or given back."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field

from hsm_core._internal.approvals.journal import ApprovalJournal
from hsm_core._internal.approvals.repository import ApprovalRegister
from hsm_core._internal.keyring.views import audited_caller
from hsm_core._internal.lib.failpoints import failpoint
from hsm_core._internal.lib.locks import Locks
from hsm_core.errors import ConflictError, HSMError
from hsm_core.model import Caller, Phase
from hsm_core.protocols import AuditDraft


@dataclass(slots=True)
class ApprovalReservation:
    """
    Approval reserved by one operation.

    Attributes:
        stack: Locks held until the reservation is settled.
    """

    approval_id: str
    operation_id: str
    caller: Caller
    stack: ExitStack = field(default_factory=ExitStack)


class ApprovalReservations:
    """
    Reserved approvals of running operations. Thread-safe.

    Args:
        register: The approvals.

        steps: Their witness.
    """

    def __init__(self, register: ApprovalRegister, steps: ApprovalJournal) -> None:
        self._register = register
        self.waiting = steps.waiting
        self._locks = Locks()
        self._unsettled: dict[str, tuple[ApprovalReservation, bool | None]] = {}

    def held(self, approval_id: str) -> AbstractContextManager[None]:
        """Return a context that locks an approval for other users."""
        return self._locks.held(approval_id)

    def settle(self, hold: ApprovalReservation, *, done: bool | None) -> None:
        """
        Consume a reserved approval, or release it.

        Raises nothing: a failed write is repeated later, and until then the approval is
        unusable.

        Args:
            hold: What the operation has.

            done: Whether it was done; None if nobody knows yet.
        """
        try:
            self._unsettled[hold.operation_id] = hold, done
            if done is not None:
                with suppress(HSMError):
                    self._settle(hold, done=done)
                    self._unsettled.pop(hold.operation_id, None)
        finally:
            hold.stack.close()

    def settle_again(
        self, was_done: Callable[[ApprovalReservation], bool | None]
    ) -> None:
        """
        Settle what could not be settled when it was due.

        Args:
            was_done: Finds out whether an operation was done.

        Raises:
            HSMError: It still can't be.
        """
        for operation_id, (hold, done) in list(self._unsettled.items()):
            with self.held(hold.approval_id):
                found = was_done(hold) if done is None else done
                if found is None or operation_id not in self._unsettled:
                    continue
                with suppress(ConflictError):
                    self._settle(hold, done=found)
                self._unsettled.pop(operation_id, None)

    def _settle(self, hold: ApprovalReservation, *, done: bool) -> None:
        failpoint("approval.before_settling")
        if done:
            self._register.consume(
                hold.approval_id,
                operation_id=hold.operation_id,
                step=step_of("system.approval-used", hold.caller),
            )
        else:
            self._register.release(
                hold.approval_id,
                operation_id=hold.operation_id,
                step=step_of("system.approval-released", hold.caller),
            )


def step_of(
    kind: str, caller: Caller, *, rule: str = "", digest: str = ""
) -> AuditDraft:
    """Return what the trail says of a step besides the approval itself."""
    return AuditDraft(
        phase=Phase.INTENT,
        kind=kind,
        caller=audited_caller(caller),
        request_id=caller.request_id,
        rule=rule,
        digest=digest,
    )
