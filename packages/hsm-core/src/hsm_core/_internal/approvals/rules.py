# SPDX-License-Identifier: MIT
"""
The rules of approvals: which state follows which, and who may bring it about.

Every function gives the approval after a step, or the very same object where the step
was made before: whoever repeats a request hears what became of it.
"""

from __future__ import annotations

import hmac
import re
from typing import Final

import msgspec

from hsm_core.errors import (
    AccessDeniedError,
    ConflictError,
    InvalidInputError,
)
from hsm_core.identities import same_person
from hsm_core.model import (
    Approval,
    ApprovalDecision,
    ApprovalState,
    Caller,
)

__all__ = [
    "MOVES",
    "cancelled",
    "check_move",
    "consumed",
    "decided",
    "expired",
    "released",
    "reserved",
]

_S: Final = ApprovalState

MOVES: Final[dict[ApprovalState, frozenset[ApprovalState]]] = {
    _S.PENDING: frozenset({_S.GRANTED, _S.DENIED, _S.CANCELLED, _S.EXPIRED}),
    _S.GRANTED: frozenset({_S.RESERVED, _S.DENIED, _S.CANCELLED, _S.EXPIRED}),
    _S.RESERVED: frozenset({_S.GRANTED, _S.CONSUMED}),
    _S.CONSUMED: frozenset(),
    _S.DENIED: frozenset(),
    _S.CANCELLED: frozenset(),
    _S.EXPIRED: frozenset(),
}
"""From each state, the states it may move to."""

_OPERATION_ID: Final = re.compile(r"[0-9a-z][0-9a-z-]{0,63}")
_LINE: Final = re.compile(r"[^\x00-\x1f\x7f-\x9f]{0,256}")


def check_move(before: ApprovalState, after: ApprovalState) -> None:
    """
    Check one move of an approval.

    Raises:
        ConflictError: The move is not legal.
    """
    if after not in MOVES[before]:
        raise _illegal(before, after)


def _illegal(before: ApprovalState, after: ApprovalState) -> ConflictError:
    return ConflictError(
        f"An approval that is {before} can't become {after}.",
        state=before.value,
        wanted=after.value,
    )


def decided(
    approval: Approval, caller: Caller, granted: bool, comment: str, now: int
) -> Approval:
    """
    Return an approval with what one more person said.

    Whoever said it before changes nothing. Enough grants make it granted, one denial
    makes it denied. After it was granted more people may still agree.

    Raises:
        AccessDeniedError: The requester decides on their own request.
        ConflictError: They said the opposite before, or it is too late.
        InvalidInputError: The comment is too long, or no line.
    """
    if same_person(caller.principal, approval.requester):
        raise AccessDeniedError("Nobody decides on their own request.")
    for decision in approval.decisions:
        if same_person(decision.principal, caller.principal):
            if decision.granted is granted:
                return approval
            raise ConflictError(
                "Who has decided can't decide otherwise; "
                f"the approval is {approval.state}.",
                state=approval.state.value,
            )
    if not _LINE.fullmatch(comment):
        raise InvalidInputError(
            "comment must be at most 256 characters without control characters.",
            field="comment",
        )
    decision = ApprovalDecision(
        principal=caller.principal,
        granted=granted,
        at=now,
        credential_id=caller.credential_id,
        certificate_sha256=caller.certificate_sha256,
        comment=comment,
    )
    return _with(approval, decision, now)


def _with(approval: Approval, decision: ApprovalDecision, now: int) -> Approval:
    decisions = (*approval.decisions, decision)
    if not decision.granted:
        return _moved(approval, _S.DENIED, decisions=decisions, closed_at=now)
    # One that is reserved becomes granted only when its operation gives it back.
    if approval.state not in {_S.PENDING, _S.GRANTED}:
        raise _illegal(approval.state, _S.GRANTED)
    state = _S.GRANTED if len(decisions) >= approval.quorum else approval.state
    return _changed(approval, state=state, decisions=decisions)


def reserved(
    approval: Approval, operation_id: str, digest: str, requester: str
) -> Approval:
    """
    Return an approval that one operation has, and no other.

    Not even the operation that has it may reserve it again.

    Raises:
        AccessDeniedError: It is for another operation, or for another person.
        ConflictError: It is not granted.
        InvalidInputError: *operation_id* can't be one.
    """
    if not _OPERATION_ID.fullmatch(operation_id):
        raise InvalidInputError(
            "operation_id has a form that no operation has.", field="operation_id"
        )
    if requester != approval.requester:
        raise AccessDeniedError("Nobody uses an approval that another asked for.")
    if not hmac.compare_digest(digest.encode(), approval.digest.encode()):
        raise AccessDeniedError("The approval is for another operation.")
    return _moved(approval, _S.RESERVED, operation_id=operation_id)


def released(approval: Approval, operation_id: str) -> Approval:
    """
    Return an approval that its operation gives back, because it was not done.

    Raises:
        ConflictError: Another operation has it, or it was used.
    """
    if approval.state is _S.GRANTED:
        return approval
    if approval.state is not _S.RESERVED:
        raise _illegal(approval.state, _S.GRANTED)
    _check_operation(approval, operation_id)
    return _moved(approval, _S.GRANTED, operation_id="")


def consumed(approval: Approval, operation_id: str, now: int) -> Approval:
    """
    Return an approval whose operation was done.

    Raises:
        ConflictError: Another operation has it, or none.
    """
    if approval.state is _S.CONSUMED and approval.operation_id == operation_id:
        return approval
    check_move(approval.state, _S.CONSUMED)
    _check_operation(approval, operation_id)
    return _moved(approval, _S.CONSUMED, closed_at=now)


def _check_operation(approval: Approval, operation_id: str) -> None:
    if approval.operation_id != operation_id:
        raise ConflictError(
            f"The approval is {approval.state} for another operation.",
            state=approval.state.value,
        )


def cancelled(approval: Approval, requester: str, now: int) -> Approval:
    """
    Return an approval that its requester wants no more.

    Raises:
        AccessDeniedError: Another person asks.
        ConflictError: It is in use, or came to another end.
    """
    if requester != approval.requester:
        raise AccessDeniedError("Only who asked for an approval cancels it.")
    if approval.state is _S.CANCELLED:
        return approval
    return _moved(approval, _S.CANCELLED, closed_at=now)


def expired(approval: Approval, now: int) -> Approval:
    """Return an approval as it is now: expired, if its time has come."""
    if _S.EXPIRED in MOVES[approval.state] and now >= approval.expires_at:
        return _moved(approval, _S.EXPIRED, closed_at=now)
    return approval


def _moved(approval: Approval, state: ApprovalState, **facts: object) -> Approval:
    check_move(approval.state, state)
    return _changed(approval, state=state, **facts)


def _changed(approval: Approval, **facts: object) -> Approval:
    return msgspec.structs.replace(
        approval, generation=approval.generation + 1, **facts
    )
