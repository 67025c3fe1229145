# SPDX-License-Identifier: MIT
"""
Values that cross the public line: who calls, what a key is, what the trail says.

All are frozen ``msgspec.Struct`` records. Their ``repr`` names the type only, so that a
value in a log line or traceback gives nothing away.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Annotated, NewType, TypeAlias

import msgspec

from hsm_core.algorithms import Algorithm, KeyUsage
from hsm_core.errors import InvalidInputError

__all__ = [
    "Approval",
    "ApprovalDecision",
    "ApprovalDemand",
    "ApprovalDetail",
    "ApprovalState",
    "AuditDetail",
    "AuditEntry",
    "AuditEvent",
    "AuditedCaller",
    "AuditedKey",
    "BatchDetail",
    "Caller",
    "CertificateIdentity",
    "CertificateNames",
    "CertificateText",
    "CountedDetail",
    "Integrity",
    "KeyFilter",
    "KeyId",
    "KeyInfo",
    "KeyOrigin",
    "KeyState",
    "Line",
    "MessageDetail",
    "ParameterValue",
    "Parameters",
    "Phase",
    "PolicyOutcome",
    "PruneDetail",
    "Record",
    "RepairDetail",
    "ResumeDetail",
    "Role",
    "RotationRule",
    "Secret",
    "UseInfo",
    "VersionInfo",
    "parse_role",
]

KeyId = NewType("KeyId", str)
"""Identifier of a key: a UUID in lower-case canonical form."""

Secret: TypeAlias = Annotated[bytes, msgspec.Meta(extra={"secret": True})]
"""Bytes that nobody but the caller may see, never stored, logged or cached."""

Line: TypeAlias = Annotated[
    str, msgspec.Meta(max_length=128, pattern=r"^[^\x00-\x1f\x7f-\x9f]*\Z")
]
"""Up to 128 characters without control characters."""

CertificateText: TypeAlias = Annotated[
    str, msgspec.Meta(max_length=1024, pattern=r"^[^\x00-\x1f\x7f-\x9f]*\Z")
]
CertificateNames: TypeAlias = Annotated[
    tuple[CertificateText, ...], msgspec.Meta(max_length=64)
]

ParameterValue: TypeAlias = str | int | list[str]
Parameters: TypeAlias = dict[str, ParameterValue]
"""Names and lengths in an operation that rules can match; never payloads."""


class Record(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
):
    """Base of every value that crosses the public line."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class Role(StrEnum):
    """What a principal is trusted with."""

    ADMINISTRATOR = "Administrator"
    OPERATOR = "Operator"
    AUDITOR = "Auditor"
    SERVICE = "Service"


_ROLES = {role.value.lower(): role for role in Role} | {"admin": Role.ADMINISTRATOR}


def parse_role(name: str) -> Role:
    """
    Return the role that a name stands for, in any case; ``admin`` is accepted.

    Raises:
        InvalidInputError: There is no such role.
    """
    try:
        return _ROLES[name.lower()]
    except KeyError:
        raise InvalidInputError(
            f"role {name[:32]!r} is not known; there are {', '.join(Role)}.",
            field="roles",
        ) from None


class Caller(Record, frozen=True, kw_only=True):
    """
    Who asks, and every fact about them that a rule may match.

    No string holds a control character.

    Attributes:
        principal: Name of the person or service, 1 to 128 characters.
        roles: Roles that the credential gives them.
        credential_id: Which credential was used (for a token, its ``jti`` or hash).
        credential_key: Name of the key that vouched for it, as `CredentialKeys` has it;
            empty if there is none. The trail does not keep it.
        certificate_sha256: Fingerprint of the client certificate, lower-case hex.
        certificate_subject: Its subject, as RFC 4514 writes it.
        certificate_names: Its alternative names: ``dns:``, ``email:``, ``ip:`` or
            ``uri:``, and the name.
        source_address: Network address of the peer.
        single_use: Whether the credential can't be used again: a token with an id, with
            which nothing was asked before. Only who calls can know that.
        request_id: Ties the trail to the caller's own logs.
        deadline: Instant of the injected monotonic clock, in seconds, after which the
            request is not begun; 0 means none.
    """

    principal: Line
    roles: frozenset[Role]
    credential_id: Line = ""
    credential_key: Line = ""
    certificate_sha256: Line = ""
    certificate_subject: CertificateText = ""
    certificate_names: CertificateNames = ()
    source_address: Line = ""
    single_use: bool = False
    request_id: Line = ""
    deadline: float = 0.0


class CertificateIdentity(Record, frozen=True, kw_only=True):
    """
    Whom a client certificate names.

    Attributes:
        principal: Who it is.
        roles: What they are.
        credential_key: What vouches for it, for `Caller.credential_key`.
    """

    principal: Line
    roles: frozenset[Role]
    credential_key: Line


class KeyState(StrEnum):
    """State of a key version; the legal moves are a table of ``lifecycle``."""

    STAGED = "staged"
    ACTIVE = "active"
    RETIRED = "retired"
    SUSPENDED = "suspended"
    REVOKED = "revoked"
    PURGE_SCHEDULED = "purge_scheduled"
    DESTROYED = "destroyed"


class Integrity(StrEnum):
    """Whether what is stored is what was stored; derived, never stored itself."""

    OK = "ok"
    TAMPERED = "tampered"
    MISSING = "missing"


class KeyOrigin(StrEnum):
    """Where the material of a key's first version came from."""

    GENERATED = "generated"
    IMPORTED = "imported"
    DERIVED = "derived"


class UseInfo(Record, frozen=True, kw_only=True):
    """
    How much a key's material was used.

    The counts are reserved in blocks before they are needed, so that after a crash
    they may be too high, and never too low.

    Attributes:
        uses: How often it protected something: signed, encrypted, computed a MAC,
            wrapped or derived.
        limit: How often it may, or 0.
        bytes: Bytes that it protected.
        last_used_at: When it was last used for anything; as of the last time that
            counts were stored, after a crash.
        near_limit: Whether four fifths of the limit are used: rotate the key soon.
    """

    uses: int
    limit: int = 0
    bytes: int = 0
    last_used_at: datetime | None = None
    near_limit: bool = False


class RotationRule(Record, frozen=True, kw_only=True):
    """
    When the HSM rotates a key by itself: as soon as one of the two is reached.

    Attributes:
        max_age_days: Days of 86 400 seconds since the current version became active;
            None is no limit.
        max_uses: How often its material has protected something; None is no limit.
    """

    max_age_days: int | None = None
    max_uses: int | None = None


class KeyInfo(Record, frozen=True, kw_only=True):
    """
    What may be known of a key.

    Attributes:
        key_id: Its UUID.
        name: Unique name, or empty.
        version: Number of the current version, from 1.
        state: State of the current version.
        integrity: Whether document and blobs are untouched.
        generation: Counts the changes of this key, from 1.
        created_at: When the key was made, in UTC.
        updated_at: When its document last changed, in UTC.
        origin: Where its first material came from.
        exportable: Whether it may be exported, wrapped; decided when it was made.
        draft: For a composite, the draft and revision that define it.
        use: Use of the current version's material; from `DescribeKey` only.
        rotation: When the HSM rotates it by itself; None if it does not.
        destroy_at: When it is to be destroyed, unless that is cancelled.
        hold: Why nothing of it may be destroyed, or empty.

    Of a key whose document was tampered with nothing but the id is known: algorithm,
    state and instants are then None, version and generation 0.
    """

    key_id: KeyId
    algorithm: Algorithm | None
    usages: tuple[KeyUsage, ...] = ()
    name: str = ""
    owner: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    version: int
    state: KeyState | None
    integrity: Integrity
    generation: int
    created_at: datetime | None
    updated_at: datetime | None
    origin: KeyOrigin = KeyOrigin.GENERATED
    exportable: bool = False
    draft: str = ""
    use: UseInfo | None = None
    rotation: RotationRule | None = None
    destroy_at: datetime | None = None
    hold: str = ""


class VersionInfo(Record, frozen=True, kw_only=True):
    """
    What may be known of one version of a key.

    Attributes:
        version: Number, from 1.
        material_id: Versions made by rollback share it with their source.
        rolled_back_from: The version whose material this one has, or 0.
        reason: Why it was revoked or suspended, or empty.
        use: Use of its material.
        activated_at: When it became active, in UTC, if it was staged; one that never
            was is active from *created_at* on.
        retired_at: When it was retired, in UTC.
        purge_at: When it is to be destroyed, in UTC, alone or with the whole key.
        compromised_at: Since when its material is compromised, as far as was told.
        revoked_at: When it was revoked, in UTC.
        retain_until: Until when its material is kept, whatever the retention policy
            says, in UTC.
    """

    version: int
    state: KeyState
    material_id: str
    integrity: Integrity
    created_at: datetime
    state_changed_at: datetime
    rolled_back_from: int = 0
    reason: str = ""
    use: UseInfo | None = None
    activated_at: datetime | None = None
    retired_at: datetime | None = None
    purge_at: datetime | None = None
    compromised_at: datetime | None = None
    revoked_at: datetime | None = None
    retain_until: datetime | None = None


class KeyFilter(Record, frozen=True, kw_only=True):
    """
    Which keys a listing shows: all conditions hold, and all *tags* are present.

    Without a state, destroyed keys are left out.

    Attributes:
        search: What the id begins with, or what stands anywhere in the name, in the
            owner or in a tag; ASCII letters in any case. Empty asks for nothing.
    """

    algorithm: Algorithm | None = None
    state: KeyState | None = None
    tags: tuple[str, ...] = ()
    search: str = ""


class PolicyOutcome(StrEnum):
    """What a policy says to a request."""

    ALLOW = "allow"
    APPROVAL = "approval"
    DENY = "deny"


class ApprovalState(StrEnum):
    """
    Where an approval stands.

    pending → granted, denied, cancelled, expired; granted → reserved, pending (more is
    asked by now, or a grant counts no more), denied, cancelled, expired; reserved →
    granted (given back, or more uses are left), consumed. No others.
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
        withdrawn_at: When it was found that their grant counts no more; else 0.
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
        expires_at: Microseconds since 1970; from then on it serves nothing.
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


class Phase(StrEnum):
    """Where a record of the trail stands in its operation."""

    INTENT = "intent"
    OUTCOME = "outcome"
    SINGLE = "single"


class AuditedCaller(Record, frozen=True, kw_only=True):
    """The caller as the trail keeps it."""

    principal: str
    roles: tuple[str, ...] = ()
    credential_id: str = ""
    certificate_sha256: str = ""
    source_address: str = ""


class AuditedKey(Record, frozen=True, kw_only=True):
    """Facts of the key at the time of the operation, for rules to be replayed on."""

    algorithm: str
    usages: tuple[str, ...] = ()
    name: str = ""
    owner: str = ""
    tags: tuple[str, ...] = ()
    state: str = ""


class RepairDetail(Record, frozen=True, kw_only=True, tag="repair"):
    """A torn tail was set aside after a crash."""

    fragment_bytes: int
    fragment_sha256: str
    kept_as: str


class CountedDetail(Record, frozen=True, kw_only=True, tag="counted"):
    """Refusals above the budget for single records, counted instead."""

    count: int
    since: int


class MessageDetail(Record, frozen=True, kw_only=True, tag="message"):
    """A short fixed text, such as the version of the program that started."""

    text: str


class BatchDetail(Record, frozen=True, kw_only=True, tag="batch"):
    """
    What a batch was.

    Attributes:
        count: Items.
        failed: Items that were answered with an error.
        inputs: Keyed digest over all items as they were sent, hex.
    """

    count: int
    failed: int
    inputs: str


class ResumeDetail(Record, frozen=True, kw_only=True, tag="resume"):
    """
    The trail could not be written for a time, and goes on.

    Attributes:
        cause: ``full``, ``write``, ``sync``, ``moved`` or ``hanging``.
        failed_at: Microseconds since 1970.
        rewritten_from: First record that was written again; the seq of this record if
            there was none.
        attempts: How often it was tried.
    """

    cause: str
    failed_at: int
    rewritten_from: int
    attempts: int


class PruneDetail(Record, frozen=True, kw_only=True, tag="prune"):
    """
    Old records were removed.

    Attributes:
        first_seq: First record that this prune removes.
        next_seq: First record that stays.
        last_leaf_hash: Leaf hash of the last record that was removed, hex.
        roots: RFC 6962 subtree roots (compact range) of all records before *next_seq*,
            from the largest subtree to the smallest, hex.
        policy: By which policy.
        baseline_sha256: Digest of what is kept of the removed records: the last state
            of each key.
    """

    first_seq: int
    next_seq: int
    last_leaf_hash: str
    roots: tuple[str, ...]
    policy: str
    baseline_sha256: str


class ApprovalDetail(Record, frozen=True, kw_only=True, tag="approval"):
    """
    A step of an approval; in an intent, the one that is about to be made.

    Attributes:
        generation: Of the approval after it.
        state: Of the approval after it.
        record_sha256: SHA-256 of the stored form after it, hex.
        before_sha256: The same before it; empty for a new approval.
        operation_id: The operation that reserves, uses or gives it back, or empty.
    """

    generation: int
    state: ApprovalState
    record_sha256: str
    before_sha256: str = ""
    operation_id: str = ""


AuditDetail: TypeAlias = (
    RepairDetail
    | CountedDetail
    | MessageDetail
    | BatchDetail
    | ResumeDetail
    | PruneDetail
    | ApprovalDetail
)


class AuditEvent(Record, frozen=True, kw_only=True):
    """
    One event of the trail; fields at their default are left out of the stored line.

    Attributes:
        format: 1. A new field means a new format.
        log_id: Random identifier of this trail, 32 hex digits.
        seq: Position, from 0, without gaps.
        prev: Leaf hash of the record before, 64 hex digits; zeros for the first.
        epoch: Which epoch key made the MAC.
        time: Microseconds since 1970-01-01T00:00:00Z.
        node: Name of the node that wrote it.
        operation_id: Ties intent, stored document and outcome together.
        kind: Name of the operation, or ``system.…`` for the HSM's own doings.
        version: Key version used or made, or 0.
        generation: Generation of the key after the operation, or 0.
        document_before: SHA-256 of the key document before, hex.
        document_after: SHA-256 of the key document after, hex.
        set_digest: Keyed digest over all keys after a change, hex; where there are
            approvals, followed by the one over all approvals.
        approval_id: The approval that it is about, or that served it.
        approval_signatures: What approvers signed with keys of their own.
        parameters: Facts of the operation; never a payload.
        rule: Name of the rule that decided.
        policy: SHA-256 of the policy in force, hex.
        demands: Of a request on which it was decided, what was asked of other people.
        digest: Keyed digest of the whole operation, hex.
        code: ``ok``, or the code of the error that was answered.
    """

    format: int
    log_id: str
    seq: int
    prev: str
    epoch: int
    time: int
    phase: Phase
    kind: str
    code: str
    node: str = ""
    request_id: str = ""
    operation_id: str = ""
    key_id: str = ""
    version: int = 0
    generation: int = 0
    document_before: str = ""
    document_after: str = ""
    set_digest: str = ""
    caller: AuditedCaller | None = None
    key: AuditedKey | None = None
    parameters: Parameters = msgspec.field(default_factory=dict)
    rule: str = ""
    policy: str = ""
    demands: tuple[ApprovalDemand, ...] = ()
    approval_id: str = ""
    approval_signatures: tuple[str, ...] = ()
    digest: str = ""
    detail: AuditDetail | None = None


class AuditEntry(Record, frozen=True, kw_only=True):
    """An event with its leaf hash (RFC 6962, 64 hex digits), as a view shows it."""

    event: AuditEvent
    leaf_hash: str
