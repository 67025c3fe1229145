# SPDX-License-Identifier: MIT
"""Approvals: demands and decisions."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Final

import msgspec

from hsm_core.model.callers import Role
from hsm_core.model.records import Line, Record

__all__ = [
    "OPEN_APPROVALS",
    "Approval",
    "ApprovalDecision",
    "ApprovalDemand",
    "ApprovalState",
    "PolicyOutcome",
]


class PolicyOutcome(StrEnum):
    """Policy decision on a request."""

    ALLOW = "allow"
    APPROVAL = "approval"
    DENY = "deny"


class ApprovalState(StrEnum):
    """
    State of an approval.

    pending → granted, denied, cancelled, expired; granted → reserved, pending (more is
    asked by now, or a grant was withdrawn or counts no more), denied, cancelled,
    expired; reserved → granted (given back, or more uses are left), consumed. No
    others.
    """

    PENDING = "pending"
    GRANTED = "granted"
    RESERVED = "reserved"
    CONSUMED = "consumed"
    DENIED = "denied"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


OPEN_APPROVALS: Final = (
    ApprovalState.PENDING,
    ApprovalState.GRANTED,
    ApprovalState.RESERVED,
)
"""States of a request that can still be decided or used."""


class ApprovalDemand(Record, frozen=True, kw_only=True):
    """
    Approvals that one policy rule requires before an operation.

    Attributes:
        rule: Name of the rule.
        quorum: Number of approvers.
        roles: Accepted approver roles; empty for any role that may approve.
        distinct_roles: Roles that different approvers must hold, such as Operator and
            Auditor.
        seconds: Lifetime of the approval request, in seconds.
        uses: Number of operations that may use the approval.
        signed: Whether each approver must sign with a registered key.
    """

    rule: Line
    quorum: Annotated[int, msgspec.Meta(ge=1, le=100)] = 1
    roles: tuple[Role, ...] = ()
    distinct_roles: tuple[Role, ...] = ()
    seconds: Annotated[int, msgspec.Meta(ge=1, le=366 * 24 * 3600)] = 3600
    uses: Annotated[int, msgspec.Meta(ge=1, le=1_000_000)] = 1
    signed: bool = False


class ApprovalDecision(Record, frozen=True, kw_only=True):
    """
    Decision of one approver.

    Attributes:
        credential_id: Of the credential that was used.
        credential_key: Keyed digest of the name of the key that vouched for it, hex, or
            empty; after a space each, those of the identity rules of a token.
        certificate_sha256: Of the client certificate, hex, or empty.
        certificate_subject: Its subject; see `Caller`.
        certificate_names: Its alternative names; see `Caller`.
        source_address: Network address of the approver, or empty.
        at: Microseconds since 1970.
        roles: Roles of the approver at that time.
        signature: Signature over the statement, or empty.
        signer: Public key that verified the signature, as text.
        withdrawn_at: Time at which the approval was withdrawn or stopped counting; else
            0.
    """

    principal: str
    granted: bool
    at: int
    credential_id: str = ""
    credential_key: str = ""
    certificate_sha256: str = ""
    certificate_subject: str = ""
    certificate_names: tuple[str, ...] = ()
    source_address: str = ""
    comment: str = ""
    roles: tuple[Role, ...] = ()
    signature: bytes = b""
    signer: str = ""
    withdrawn_at: int = 0

    @property
    def counts(self) -> bool:
        """Whether it is an approval that still counts."""
        return self.granted and not self.withdrawn_at


class Approval(Record, frozen=True, kw_only=True):
    """
    Approval request with its decisions.

    Attributes:
        approval_id: A UUID in lower-case canonical form.
        generation: Change counter, from 1.
        kind: Name of the operation.
        digest: Keyed digest of requester and resolved operation, hex; it binds every
            field, and the versions that the operation does not name.
        requester: Requester, the only principal that may use it.
        demands: Required approvals; all must be met.
        created_at: Microseconds since 1970.
        expires_at: Expiry time, in microseconds since 1970.
        salt: 32 random bytes, salt of the shown operation.
        shown_sha256: SHA-256 of the shown operation, hex.
        sealed: Shown operation, sealed.
        uses_left: Remaining number of uses.
        key_id: Key ID, or empty.
        credential_id: Of the requester's credential.
        certificate_sha256: Of the requester's client certificate, hex, or empty.
        policy: SHA-256 of the policy in force when the request was opened, hex.
        decisions: In the order in which they were made.
        operation_id: Operation that last reserved or used it, or empty.
        log_id: Audit log that the operation is recorded in, 32 hex digits; empty on a
            single machine.
        closed_at: Time at which it was denied, cancelled, consumed or expired; else 0.
    """

    approval_id: str
    generation: int
    state: ApprovalState
    kind: str
    digest: str
    requester: str
    demands: tuple[ApprovalDemand, ...]
    created_at: int
    expires_at: int
    salt: bytes = b""
    shown_sha256: str = ""
    sealed: bytes = b""
    uses_left: int = 1
    key_id: str = ""
    credential_id: str = ""
    certificate_sha256: str = ""
    policy: str = ""
    decisions: tuple[ApprovalDecision, ...] = ()
    operation_id: str = ""
    log_id: str = ""
    closed_at: int = 0
