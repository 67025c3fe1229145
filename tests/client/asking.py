# SPDX-License-Identifier: MIT
"""HSM in memory that requires approval for some operations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec

from hsm_core.consent import ShownContext, ShownField, ShownOperation, shown_sha256
from hsm_core.errors import AccessDeniedError, ApprovalRequiredError, ConflictError
from hsm_core.model import ApprovalDemand, ApprovalState, Role
from hsm_core.operations import (
    ApprovalInfo,
    ApprovalPage,
    Approve,
    CancelApproval,
    DecisionInfo,
    Deny,
    GetApproval,
    ListApprovals,
    Operation,
    Withdraw,
)
from hsm_core.protocols import HSM

R = TypeVar("R")

ID = "5b1c9a52-7a0e-4d0c-8a35-0c7f0e9b1d24"
SALT = bytes(range(32))
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
_CONSENTS = (GetApproval, ListApprovals, Approve, Deny, Withdraw, CancelApproval)


def asked(
    *fields: ShownField,
    kind: str = "DestroyKey",
    requester: str = "alice",
    context: ShownContext | None = None,
) -> ApprovalInfo:
    """Return an approval that waits for one Auditor."""
    shown = ShownOperation(
        format=1,
        kind=kind,
        requester=requester,
        key_id="3f0c7e0e-0d3b-4c43-9b7a-2f5b8f1f7c11",
        key_name="release-signer",
        algorithm="ECDSA-P256",
        version=2,
        fields=fields,
        context=context,
    )
    return ApprovalInfo(
        approval_id=ID,
        state=ApprovalState.PENDING,
        generation=1,
        operation=shown,
        salt=SALT,
        digest=shown_sha256(SALT, shown),
        demands=(ApprovalDemand(rule="destroying", roles=(Role.AUDITOR,)),),
        missing=("1 more of Auditor",),
        created_at=NOW,
        expires_at=NOW.replace(hour=4),
    )


@dataclass
class Asking:
    """
    HSM that requires approval for some kinds of operations; there is one approval.

    Attributes:
        inner: Executes what needs nobody's consent, or has it.
        kinds: Operations that need it.
        approval: What is asked for.
        steps: States that the approval comes to, one each time that it is looked at.
        received: Every operation, in order.
    """

    inner: HSM
    kinds: tuple[type[Operation[Any]], ...] = ()
    approval: ApprovalInfo = field(default_factory=asked)
    steps: Sequence[ApprovalState | Exception] = field(default_factory=list)
    received: list[Operation[Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)

    def execute(
        self,
        operation: Operation[R],
        /,
        *,
        idempotency_key: str | None = None,
        approval_id: str = "",
        expected_generation: int = 0,
    ) -> R:
        """Execute an operation, or require approval."""
        self.received.append(operation)
        if isinstance(operation, self.kinds):
            self.keys.append(idempotency_key)
            if self.approval.state is not ApprovalState.GRANTED:
                raise self._required()
        if isinstance(operation, _CONSENTS):
            result: R = self._consent(operation)
            return result
        return self.inner.execute(
            operation,
            idempotency_key=idempotency_key,
            approval_id=approval_id,
            expected_generation=expected_generation,
        )

    def _required(self) -> ApprovalRequiredError:
        error = ApprovalRequiredError(
            approval_id=self.approval.approval_id,
            digest=self.approval.digest,
            expires_at=self.approval.expires_at.isoformat(),
        )
        error.approval = self.approval
        return error

    def _consent(self, operation: Operation[Any]) -> Any:
        match operation:
            case ListApprovals():
                return ApprovalPage(items=(self.approval,))
            case GetApproval():
                if self.steps:
                    step, *self.steps = self.steps
                    self._step(step)
                return self.approval
            case Approve() if operation.digest != self.approval.digest:
                raise ConflictError("That is not what is asked for.")
            case Approve():
                self._say(granted=True, comment=operation.comment)
                self._change(missing=())
            case Deny():
                self._say(granted=False, comment=operation.reason)
            case Withdraw():
                (said,) = self.approval.decisions
                said = msgspec.structs.replace(said, withdrawn=True)
                self._change(state=ApprovalState.PENDING, decisions=(said,))
            case _:
                raise AccessDeniedError("Only the requester can cancel an approval.")
        return self.approval

    def _step(self, step: ApprovalState | Exception) -> None:
        if isinstance(step, Exception):
            raise step
        self._change(state=step)

    def _say(self, *, granted: bool, comment: str) -> None:
        said = DecisionInfo(principal="bob", granted=granted, at=NOW, comment=comment)
        state = ApprovalState.GRANTED if granted else ApprovalState.DENIED
        self._change(state=state, decisions=(said,))

    def _change(self, **facts: Any) -> None:
        self.approval = msgspec.structs.replace(self.approval, **facts)
