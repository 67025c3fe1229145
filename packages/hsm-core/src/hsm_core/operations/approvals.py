# SPDX-License-Identifier: MIT
"""Approvals: what is asked of other people, and what they say to it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar

from msgspec import Meta

from hsm_core.consent import ShownOperation
from hsm_core.model import ApprovalDemand, ApprovalState, Line, Record, Role
from hsm_core.operations.base import Effect, Operation
from hsm_core.operations.names import (
    AnyApprovalDigest,
    ApprovalDigest,
    ApprovalGeneration,
    ApprovalReference,
    Reason,
)

__all__ = [
    "ApprovalInfo",
    "ApprovalPage",
    "ApprovalStatus",
    "Approve",
    "CancelApproval",
    "DecisionInfo",
    "Deny",
    "GetApproval",
    "ListApprovals",
    "Withdraw",
]


class ApprovalStatus(Record, frozen=True, kw_only=True):
    """
    How the approvals are.

    Attributes:
        available: Whether their store can be read and written.
        pending: How many wait for consent; some may have expired unnoticed.
        granted: How many are granted and not used.
        findings: How many are not as the trail says; none of these serves.
    """

    available: bool = True
    pending: int = 0
    granted: int = 0
    findings: int = 0


class DecisionInfo(Record, frozen=True, kw_only=True):
    """
    What one person said to a request.

    Attributes:
        roles: Roles that they had then.
        signed: Whether they signed it with a key of their own.
        withdrawn: Whether it counts no more: they withdrew it, or may not do this any
            more.
    """

    principal: str
    granted: bool
    at: datetime
    comment: str = ""
    roles: tuple[Role, ...] = ()
    signed: bool = False
    withdrawn: bool = False


class ApprovalInfo(Record, frozen=True, kw_only=True):
    """
    A request for approval, as requester and approvers see it.

    Attributes:
        generation: Counts its changes, from 1.
        operation: What is asked for.
        salt: 32 bytes; with it ``consent.shown_sha256`` of *operation* is *digest*.
        digest: What approvers see and sign, hex.
        demands: What must be consented to; all of it.
        missing: What of that is still needed, in words.
        uses_left: For how many operations it may still be used.
        policy: SHA-256 of the policy in force when it was asked for, hex.
        expires_at: From then on it serves nothing.
        closed_at: When it was denied, cancelled, used up or expired.
        operation_id: The operation that has it, or used it last; see the trail.
    """

    approval_id: str
    state: ApprovalState
    generation: int
    operation: ShownOperation
    salt: bytes
    digest: str
    demands: tuple[ApprovalDemand, ...]
    created_at: datetime
    expires_at: datetime
    missing: tuple[str, ...] = ()
    decisions: tuple[DecisionInfo, ...] = ()
    uses_left: int = 1
    policy: str = ""
    closed_at: datetime | None = None
    operation_id: str = ""


class ApprovalPage(Record, frozen=True, kw_only=True):
    """
    One page of approvals, newest first.

    Attributes:
        tampered: Ids of approvals met that are not as the HSM wrote them.
        key_tampered: Ids of approvals met whose key was tampered with. They are not
            shown: nobody can tell whom the policy lets know of it.
        next_cursor: Where the next page begins; empty on the last one. A page may be
            short, or empty, and yet say where to go on.
    """

    items: tuple[ApprovalInfo, ...]
    tampered: tuple[str, ...] = ()
    key_tampered: tuple[str, ...] = ()
    next_cursor: str = ""


class ListApprovals(Operation[ApprovalPage], frozen=True, kw_only=True):
    """
    Return a page of approvals, newest first.

    Who may not approve sees their own requests only.

    Attributes:
        states: Any of these; empty for all.
        kind: Name of the operation that is asked for, or empty.
        key_id: Id of the key that it is about, or empty.
        requester: Principal that asked, or empty.
        cursor: ``next_cursor`` of the page before.
    """

    effect: ClassVar = Effect.READ
    while_locked: ClassVar = True

    states: Annotated[tuple[ApprovalState, ...], Meta(max_length=7)] = ()
    kind: Annotated[str, Meta(max_length=64)] = ""
    key_id: Annotated[str, Meta(max_length=64)] = ""
    requester: Line = ""
    per_page: Annotated[int, Meta(ge=1, le=100)] = 50
    cursor: Annotated[str, Meta(max_length=128)] = ""


class GetApproval(Operation[ApprovalInfo], frozen=True, kw_only=True):
    """Return an approval; who may not approve sees their own requests only."""

    effect: ClassVar = Effect.READ
    while_locked: ClassVar = True

    approval_id: ApprovalReference


class Approve(Operation[ApprovalInfo], frozen=True, kw_only=True):
    """
    Consent to what somebody else asked for.

    Never to one's own request, nor twice as the same person. Said again, it changes
    nothing.

    Attributes:
        digest: ``digest`` of what was shown, 64 hex digits; another one is refused. A
            client computes it from what it displays: `consent.shown_sha256`.
        generation: ``generation`` of what was shown; if there is another by now, it is
            looked at again first. 0 leaves that to the approver.
        comment: Recorded.
        signature: Signature over ``consent.statement`` with a key of one's own.
        signer: Which of one's registered keys made it; empty tries all.
    """

    effect: ClassVar = Effect.CONSENT
    while_locked: ClassVar = True

    approval_id: ApprovalReference
    digest: ApprovalDigest
    generation: ApprovalGeneration = 0
    comment: Reason = ""
    signature: Annotated[bytes, Meta(max_length=1024)] | None = None
    signer: Line = ""


class Deny(Operation[ApprovalInfo], frozen=True, kw_only=True):
    """
    Refuse what somebody else asked for; it ends the approval, granted or not.

    Attributes:
        reason: Recorded.
        digest: As in `Approve`; may be empty, for nothing is done by a refusal.
        generation: As in `Approve`.
        signature: Over the statement that refuses; nobody has to sign that.
        signer: As in `Approve`.
    """

    effect: ClassVar = Effect.CONSENT
    while_locked: ClassVar = True

    approval_id: ApprovalReference
    reason: Annotated[Reason, Meta(min_length=1)]
    digest: AnyApprovalDigest = ""
    generation: ApprovalGeneration = 0
    signature: Annotated[bytes, Meta(max_length=1024)] | None = None
    signer: Line = ""


class Withdraw(Operation[ApprovalInfo], frozen=True, kw_only=True):
    """
    Withdraw one's own approval of a request, until it is consumed.

    The request is pending again if others' approvals are not enough. Who withdrew may
    approve or deny it again. Said again, it changes nothing.

    Attributes:
        reason: Recorded.
    """

    effect: ClassVar = Effect.CONSENT

    approval_id: ApprovalReference
    reason: Reason = ""


class CancelApproval(Operation[ApprovalInfo], frozen=True, kw_only=True):
    """Give up a request of one's own; done again, it changes nothing."""

    effect: ClassVar = Effect.CONSENT
    while_locked: ClassVar = True

    approval_id: ApprovalReference
