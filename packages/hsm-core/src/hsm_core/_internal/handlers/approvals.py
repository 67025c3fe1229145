# SPDX-License-Identifier: MIT
"""Approvals: ListApprovals, GetApproval, Approve, Deny, Withdraw, CancelApproval."""

from __future__ import annotations

from typing import Any

from hsm_core import operations as ops
from hsm_core._internal.handlers.base import (
    HandlerDependencies,
    Speed,
    answers,
    check_known,
)
from hsm_core._internal.handlers.context import RequestContext
from hsm_core._internal.keyring.documents import audited_caller
from hsm_core.model import Phase
from hsm_core.policies import KNOWN_OPERATIONS
from hsm_core.protocols import AuditDraft

# All of them read a store, and may write down that something has expired.


@answers(ops.ListApprovals, Speed.POOLED)
def list_approvals(
    services: HandlerDependencies, context: RequestContext[ops.ListApprovals]
) -> ops.ApprovalPage:
    """Read the index, then authenticate every approval that is shown."""
    if context.operation.kind:
        check_known(context.operation.kind, KNOWN_OPERATIONS, field="kind")
    return services.consents.people.list(context.caller, context.operation)


@answers(ops.GetApproval, Speed.POOLED)
def get_approval(
    services: HandlerDependencies, context: RequestContext[ops.GetApproval]
) -> ops.ApprovalInfo:
    """Read one approval."""
    approval_id = context.operation.approval_id
    return services.consents.people.get(context.caller, approval_id)


@answers(ops.Deny, Speed.POOLED)
@answers(ops.Approve, Speed.POOLED)
def decide(
    services: HandlerDependencies, context: RequestContext[Any]
) -> ops.ApprovalInfo:
    """Note and record a decision."""
    consents, step = services.consents, _step(context)
    with consents.checking(context.check_caller):
        return consents.people.decide(context.caller, context.operation, step)


@answers(ops.Withdraw, Speed.POOLED)
def withdraw(
    services: HandlerDependencies, context: RequestContext[ops.Withdraw]
) -> ops.ApprovalInfo:
    """Note and record that an approval was withdrawn."""
    consents, step = services.consents, _step(context)
    with consents.checking(context.check_caller):
        return consents.withdraw(context.caller, context.operation, step)


@answers(ops.CancelApproval, Speed.POOLED)
def cancel(
    services: HandlerDependencies, context: RequestContext[ops.CancelApproval]
) -> ops.ApprovalInfo:
    """Note and record that a request was given up."""
    consents, step = services.consents, _step(context)
    approval_id = context.operation.approval_id
    with consents.checking(context.check_caller):
        return consents.people.cancel(context.caller, approval_id, step)


def _step(context: RequestContext[Any]) -> AuditDraft:
    caller = context.caller
    return AuditDraft(
        phase=Phase.INTENT,
        kind=type(context.operation).__name__,
        caller=audited_caller(caller),
        request_id=caller.request_id,
        rule=context.rule,
        digest=context.digest,
    )
