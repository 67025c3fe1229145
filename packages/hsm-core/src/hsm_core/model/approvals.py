# SPDX-License-Identifier: MIT
"""Approvals: demands and decisions."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import msgspec

from hsm_core.model.callers import Role
from hsm_core.model.records import Line, Record

__all__ = [
    "Approval",
    "ApprovalDecision",
    "ApprovalDemand",
    "ApprovalState",
    "PolicyOutcome",
]


class PolicyOutcome(StrEnum):
    """What a policy says to a request."""

    ALLOW = "allow"
    APPROVAL = "approval"
    DENY = "deny"


class ApprovalState(StrEnum):
    """
    Where an approval stands.

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


class ApprovalDemand(Record, frozen=True, kw_only=True):
    """
    What one rule of the policy asks for before an operation is done.

    Attributes:
        rule: Name of the rule.
        quorum: How many other people must grant it.
        roles: Roles of which each of them must have one; empty for any role that may
            approve.
        distinct_roles: Roles that must each be held by a person of its own among them,
            such as Operator and Auditor.
        seconds: For how long the approval may be granted and used.
        uses: For how many operations it may be used.
        signed: Whether each of them must sign with a registered key of their own.
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
    What one person said to a request.

    Attributes:
        credential_id: Of the credential that was used.
        credential_key: Keyed digest of the name of the key that vouched for it, hex, or
            empty.
        certificate_sha256: Of the client certificate, hex, or empty.
        certificate_subject: Its subject; see `Caller`.
        certificate_names: Its alternative names; see `Caller`.
        source_address: Network address that they came from, or empty.
        at: Microseconds since 1970.
        roles: Roles that they had then.
        signature: Their signature over the statement, or empty.
        signer: The public key that it was checked with, as text.
        withdrawn_at: When they withdrew their grant, or it was found to count no more;
            else 0.
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
        """Whether it is a grant that still counts."""
        return self.granted and not self.withdrawn_at


class Approval(Record, frozen=True, kw_only=True):
    """
    A request that needs the consent of other people, and what they said.

    Attributes:
        approval_id: A UUID in lower-case canonical form.
        generation: From 1; grows by one with every change.
        kind: Name of the operation.
        digest: Keyed digest of requester and resolved operation, hex; it binds every
            field, and the versions that the operation does not name.
        requester: Principal that asked, and alone may use it.
        demands: What must be consented to; all of it.
        created_at: Microseconds since 1970.
        expires_at: Expiry time, in microseconds since 1970.
        salt: 32 random bytes, under which the operation is shown.
        shown_sha256: Digest of the operation as it is shown, hex.
        sealed: The operation as it is shown, sealed.
        uses_left: For how many operations it may still be used.
        key_id: The key that it is about, or empty.
        credential_id: Of the requester's credential.
        certificate_sha256: Of the requester's client certificate, hex, or empty.
        policy: SHA-256 of the policy in force when it was asked for, hex.
        decisions: In the order in which they were made.
        operation_id: The operation that has reserved or used it last, or empty.
        closed_at: When it was denied, cancelled, consumed or expired; else 0.
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
    closed_at: int = 0
