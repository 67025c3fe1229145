# SPDX-License-Identifier: MIT
"""Approvals: ListApprovals, GetApproval, Approve, Deny, Withdraw, CancelApproval."""

from __future__ import annotations

from typing import Any

from hsm_core import operations as ops
from hsm_core._internal.handlers.base import (
    Answer,
    Handler,
    Op,
    OperationContext,
    R,
    check_known,
    handles,
)
from hsm_core._internal.keyring.documents import audited_caller
from hsm_core.model import Phase
from hsm_core.policies import KNOWN_OPERATIONS
from hsm_core.protocols import AuditDraft


class _ApprovalHandler(Handler[Op, R]):
    """Base of them: all read a store, and may write down that something has expired."""

    def is_quick(self, operation: Op, /) -> bool:
        """Never: it reads and writes files."""
        return False

    def _step(self, subject: OperationContext[Any]) -> AuditDraft:
        caller = subject.caller
        return AuditDraft(
            phase=Phase.INTENT,
            kind=type(subject.operation).__name__,
            caller=audited_caller(caller),
            request_id=caller.request_id,
            rule=subject.rule,
            digest=subject.digest,
        )


@handles(ops.ListApprovals)
class ListApprovalsHandler(_ApprovalHandler[ops.ListApprovals, ops.ApprovalPage]):
    """Show a page of approvals."""

    def perform(
        self, subject: OperationContext[ops.ListApprovals], /
    ) -> Answer[ops.ApprovalPage]:
        """Read the index, then authenticate every approval that is shown."""
        if subject.operation.kind:
            check_known(subject.operation.kind, KNOWN_OPERATIONS, field="kind")
        people = self._services.consents.people
        return Answer(people.list(subject.caller, subject.operation))


@handles(ops.GetApproval)
class GetApprovalHandler(_ApprovalHandler[ops.GetApproval, ops.ApprovalInfo]):
    """Show an approval."""

    def perform(
        self, subject: OperationContext[ops.GetApproval], /
    ) -> Answer[ops.ApprovalInfo]:
        """Read it."""
        people = self._services.consents.people
        return Answer(people.get(subject.caller, subject.operation.approval_id))


@handles(ops.Approve)
class ApproveHandler(_ApprovalHandler[ops.Approve, ops.ApprovalInfo]):
    """Consent."""

    def perform(
        self, subject: OperationContext[ops.Approve], /
    ) -> Answer[ops.ApprovalInfo]:
        """Note and record it."""
        people = self._services.consents.people
        step = self._step(subject)
        return Answer(people.decide(subject.caller, subject.operation, step))


@handles(ops.Deny)
class DenyHandler(_ApprovalHandler[ops.Deny, ops.ApprovalInfo]):
    """Refuse."""

    def perform(
        self, subject: OperationContext[ops.Deny], /
    ) -> Answer[ops.ApprovalInfo]:
        """Note and record it."""
        people = self._services.consents.people
        step = self._step(subject)
        return Answer(people.decide(subject.caller, subject.operation, step))


@handles(ops.Withdraw)
class WithdrawHandler(_ApprovalHandler[ops.Withdraw, ops.ApprovalInfo]):
    """Withdraw an approval."""

    def perform(
        self, subject: OperationContext[ops.Withdraw], /
    ) -> Answer[ops.ApprovalInfo]:
        """Note and record it."""
        consents, step = self._services.consents, self._step(subject)
        return Answer(consents.withdraw(subject.caller, subject.operation, step))


@handles(ops.CancelApproval)
class CancelApprovalHandler(_ApprovalHandler[ops.CancelApproval, ops.ApprovalInfo]):
    """Give up a request."""

    def perform(
        self, subject: OperationContext[ops.CancelApproval], /
    ) -> Answer[ops.ApprovalInfo]:
        """Note and record it."""
        people = self._services.consents.people
        approval_id, step = subject.operation.approval_id, self._step(subject)
        return Answer(people.cancel(subject.caller, approval_id, step))
