# SPDX-License-Identifier: MIT
"""Approvals: ListApprovals, GetApproval, Approve, Deny, Withdraw, CancelApproval."""

from __future__ import annotations

from typing import Any

from hsm_core import operations as ops
from hsm_core._internal.handlers.base import (
    Answer,
    Handler,
    Op,
    R,
    check_known,
    handles,
)
from hsm_core._internal.handlers.context import RequestContext
from hsm_core._internal.keyring.documents import audited_caller
from hsm_core.model import Phase
from hsm_core.policies import KNOWN_OPERATIONS
from hsm_core.protocols import AuditDraft


class _ApprovalHandler(Handler[Op, R]):
    """Base of them: all read a store, and may write down that something has expired."""

    def is_quick(self, operation: Op, /) -> bool:
        """Never: it reads and writes files."""
        return False

    def _step(self, context: RequestContext[Any]) -> AuditDraft:
        caller = context.caller
        return AuditDraft(
            phase=Phase.INTENT,
            kind=type(context.operation).__name__,
            caller=audited_caller(caller),
            request_id=caller.request_id,
            rule=context.rule,
            digest=context.digest,
        )


@handles(ops.ListApprovals)
class ListApprovalsHandler(_ApprovalHandler[ops.ListApprovals, ops.ApprovalPage]):
    """Show a page of approvals."""

    def perform(
        self, context: RequestContext[ops.ListApprovals], /
    ) -> Answer[ops.ApprovalPage]:
        """Read the index, then authenticate every approval that is shown."""
        if context.operation.kind:
            check_known(context.operation.kind, KNOWN_OPERATIONS, field="kind")
        people = self._services.consents.people
        return Answer(people.list(context.caller, context.operation))


@handles(ops.GetApproval)
class GetApprovalHandler(_ApprovalHandler[ops.GetApproval, ops.ApprovalInfo]):
    """Show an approval."""

    def perform(
        self, context: RequestContext[ops.GetApproval], /
    ) -> Answer[ops.ApprovalInfo]:
        """Read it."""
        people = self._services.consents.people
        return Answer(people.get(context.caller, context.operation.approval_id))


@handles(ops.Approve)
class ApproveHandler(_ApprovalHandler[ops.Approve, ops.ApprovalInfo]):
    """Consent."""

    def perform(
        self, context: RequestContext[ops.Approve], /
    ) -> Answer[ops.ApprovalInfo]:
        """Note and record it."""
        people = self._services.consents.people
        step = self._step(context)
        return Answer(people.decide(context.caller, context.operation, step))


@handles(ops.Deny)
class DenyHandler(_ApprovalHandler[ops.Deny, ops.ApprovalInfo]):
    """Refuse."""

    def perform(self, context: RequestContext[ops.Deny], /) -> Answer[ops.ApprovalInfo]:
        """Note and record it."""
        people = self._services.consents.people
        step = self._step(context)
        return Answer(people.decide(context.caller, context.operation, step))


@handles(ops.Withdraw)
class WithdrawHandler(_ApprovalHandler[ops.Withdraw, ops.ApprovalInfo]):
    """Withdraw an approval."""

    def perform(
        self, context: RequestContext[ops.Withdraw], /
    ) -> Answer[ops.ApprovalInfo]:
        """Note and record it."""
        consents, step = self._services.consents, self._step(context)
        return Answer(consents.withdraw(context.caller, context.operation, step))


@handles(ops.CancelApproval)
class CancelApprovalHandler(_ApprovalHandler[ops.CancelApproval, ops.ApprovalInfo]):
    """Give up a request."""

    def perform(
        self, context: RequestContext[ops.CancelApproval], /
    ) -> Answer[ops.ApprovalInfo]:
        """Note and record it."""
        people = self._services.consents.people
        approval_id, step = context.operation.approval_id, self._step(context)
        return Answer(people.cancel(context.caller, approval_id, step))
