# SPDX-License-Identifier: MIT
"""Approvals: requests and decisions."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar, TypeAlias

from msgspec import Meta

from hsm_core.consent import ShownOperation
from hsm_core.model import ApprovalDemand, ApprovalState, Line, Record, Role
from hsm_core.operations.base import Effect, Operation, Reason, Route

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


ApprovalReference: TypeAlias = Annotated[
    str,
    Meta(
        pattern=r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z",
        max_length=36,
        description="Approval ID (UUID).",
        examples=["5b1c9a52-7a0e-4d0c-8a35-0c7f0e9b1d24"],
    ),
]
ApprovalDigest: TypeAlias = Annotated[
    str, Meta(pattern=r"^[0-9a-f]{64}\Z", max_length=64)
]
AnyApprovalDigest: TypeAlias = Annotated[
    str, Meta(pattern=r"^([0-9a-f]{64})?\Z", max_length=64)
]
ApprovalGeneration: TypeAlias = Annotated[int, Meta(ge=0, lt=2**53)]


class ApprovalStatus(Record, frozen=True, kw_only=True):
    """
    State of the approval store.

    Attributes:
        available: Whether the store can be read and written.
        pending: Number of pending approvals, including expired ones not yet marked.
        granted: Number of granted, unused approvals.
        findings: Number of approvals that differ from the audit log; they can't be
            used.
    """

    available: bool = True
    pending: int = 0
    granted: int = 0
    findings: int = 0


class DecisionInfo(Record, frozen=True, kw_only=True):
    """
    Decision of one approver.

    Attributes:
        roles: Roles of the approver at that time.
        signed: Whether the approver signed it with a registered key.
        withdrawn: Whether it no longer counts: it was withdrawn, or the approver lost
            the right to decide.
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
    Approval request, as shown to requester and approvers.

    Attributes:
        generation: Change counter, from 1.
        operation: Requested operation.
        salt: 32 bytes; input of ``consent.shown_sha256``, which yields *digest*.
        digest: SHA-256 of the shown operation, hex; approvers sign it.
        demands: Required approvals; all must be met.
        missing: Demands not yet met, in words.
        uses_left: Remaining number of uses.
        policy: SHA-256 of the policy in force when the request was opened, hex.
        expires_at: Expiry time.
        closed_at: Time at which it was denied, cancelled, consumed or expired.
        operation_id: Operation that reserved or last used it; see the audit log.
    """

    repr_fields: ClassVar = ("approval_id", "state", "operation")

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
        tampered: IDs of listed approvals that failed their integrity check.
        key_tampered: IDs of listed approvals whose key was tampered with. They are not
            shown, because the policy can't decide who may see them.
        next_cursor: Cursor of the next page; empty on the last page. A short or empty
            page can still have a next page.
    """

    items: tuple[ApprovalInfo, ...]
    tampered: tuple[str, ...] = ()
    key_tampered: tuple[str, ...] = ()
    next_cursor: str = ""


class ListApprovals(Operation[ApprovalPage], frozen=True, kw_only=True):
    """
    Return a page of approvals, newest first.

    Callers who can't approve see only their own requests.

    Attributes:
        states: Accepted states; empty for all.
        kind: Name of the requested operation, or empty.
        key_id: Key ID, or empty.
        requester: Principal of the requester, or empty.
        cursor: ``next_cursor`` of the previous page.
    """

    effect: ClassVar = Effect.READ
    while_locked: ClassVar = True
    route: ClassVar = Route(
        "GET",
        "/approvals",
        example={"states": ["pending"], "per_page": 20},
    )

    states: Annotated[tuple[ApprovalState, ...], Meta(max_length=7)] = ()
    kind: Annotated[str, Meta(max_length=64)] = ""
    key_id: Annotated[str, Meta(max_length=64)] = ""
    requester: Line = ""
    per_page: Annotated[int, Meta(ge=1, le=100)] = 50
    cursor: Annotated[str, Meta(max_length=128)] = ""


class GetApproval(Operation[ApprovalInfo], frozen=True, kw_only=True):
    """Return an approval; callers who can't approve see only their own requests."""

    effect: ClassVar = Effect.READ
    while_locked: ClassVar = True
    route: ClassVar = Route(
        "GET",
        "/approvals/{approval_id}",
        example={"approval_id": "5b1c9a52-7a0e-4d0c-8a35-0c7f0e9b1d24"},
    )

    approval_id: ApprovalReference


class Approve(Operation[ApprovalInfo], frozen=True, kw_only=True):
    """
    Approve another caller's request.

    Requesters can't approve their own requests, and each person counts once. Repeating
    the same decision changes nothing.

    Attributes:
        digest: ``digest`` of the shown approval, 64 hex digits; a different digest is
            rejected. Clients compute it from the displayed operation with
            `consent.shown_sha256`.
        generation: ``generation`` of the shown approval; a different generation is
            rejected. 0 skips this check.
        comment: Recorded.
        signature: Signature over ``consent.statement`` with a registered key.
        signer: Fingerprint of the registered key that signed; empty tries all.
    """

    effect: ClassVar = Effect.CONSENT
    while_locked: ClassVar = True
    route: ClassVar = Route(
        "POST",
        "/approvals/{approval_id}/approve",
        example={
            "approval_id": "5b1c9a52-7a0e-4d0c-8a35-0c7f0e9b1d24",
            "digest": "41" * 32,
            "comment": "as agreed",
        },
    )

    approval_id: ApprovalReference
    digest: ApprovalDigest
    generation: ApprovalGeneration = 0
    comment: Reason = ""
    signature: Annotated[bytes, Meta(max_length=1024)] | None = None
    signer: Line = ""


class Deny(Operation[ApprovalInfo], frozen=True, kw_only=True):
    """
    Deny another caller's request; this closes the approval, even if granted.

    Attributes:
        reason: Recorded.
        digest: As in `Approve`; optional, because a denial executes nothing.
        generation: As in `Approve`.
        signature: Signature over the denial statement; never required.
        signer: As in `Approve`.
    """

    effect: ClassVar = Effect.CONSENT
    while_locked: ClassVar = True
    route: ClassVar = Route(
        "POST",
        "/approvals/{approval_id}/deny",
        example={
            "approval_id": "5b1c9a52-7a0e-4d0c-8a35-0c7f0e9b1d24",
            "reason": "not before the audit",
        },
    )

    approval_id: ApprovalReference
    reason: Annotated[Reason, Meta(min_length=1)]
    digest: AnyApprovalDigest = ""
    generation: ApprovalGeneration = 0
    signature: Annotated[bytes, Meta(max_length=1024)] | None = None
    signer: Line = ""


class Withdraw(Operation[ApprovalInfo], frozen=True, kw_only=True):
    """
    Withdraw your approval of a request, until it is consumed.

    The request is pending again if the other approvals are not enough. The approver may
    approve or deny it again later. Repeating the withdrawal changes nothing.

    Attributes:
        reason: Recorded.
    """

    effect: ClassVar = Effect.CONSENT
    while_locked: ClassVar = True
    route: ClassVar = Route(
        "POST",
        "/approvals/{approval_id}/withdraw",
        example={
            "approval_id": "5b1c9a52-7a0e-4d0c-8a35-0c7f0e9b1d24",
            "reason": "the request has changed",
        },
    )

    approval_id: ApprovalReference
    reason: Reason = ""


class CancelApproval(Operation[ApprovalInfo], frozen=True, kw_only=True):
    """Cancel your own request. Repeating it changes nothing."""

    effect: ClassVar = Effect.CONSENT
    while_locked: ClassVar = True
    route: ClassVar = Route(
        "POST",
        "/approvals/{approval_id}/cancel",
        example={"approval_id": "5b1c9a52-7a0e-4d0c-8a35-0c7f0e9b1d24"},
    )

    approval_id: ApprovalReference
