# SPDX-License-Identifier: MIT
"""Audit records."""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, TypeAlias

import msgspec

from hsm_core.model.approvals import ApprovalDemand, ApprovalState
from hsm_core.model.records import Parameters, Record

__all__ = [
    "ApprovalDetail",
    "AuditDetail",
    "AuditEntry",
    "AuditEvent",
    "AuditedCaller",
    "AuditedKey",
    "BatchDetail",
    "CountedDetail",
    "HeadsDetail",
    "LogBegunDetail",
    "LogHead",
    "MessageDetail",
    "Phase",
    "PruneDetail",
    "RepairDetail",
    "ResumeDetail",
]


class Phase(StrEnum):
    """Phase of an audit record within its operation."""

    INTENT = "intent"
    OUTCOME = "outcome"
    SINGLE = "single"


class AuditedCaller(Record, frozen=True, kw_only=True):
    """
    Caller as recorded.

    Attributes:
        interface: Interface that the request came through, as the HSM knows it.
        interface_claimed: What the caller's program said of itself; not verified.
    """

    principal: str
    roles: tuple[str, ...] = ()
    credential_id: str = ""
    certificate_sha256: str = ""
    source_address: str = ""
    interface: str = ""
    interface_claimed: str = ""


class AuditedKey(Record, frozen=True, kw_only=True):
    """Key facts at the time of the operation, for policy replay."""

    algorithm: str
    usages: tuple[str, ...] = ()
    name: str = ""
    owner: str = ""
    tags: tuple[str, ...] = ()
    state: str = ""


class LogBegunDetail(Record, frozen=True, kw_only=True, tag="log-begun"):
    """
    First record of a log.

    Attributes:
        log_id: Random identifier of the log, 32 hex digits.
        node: Name of the node that writes it.
        former_log_id: Log that this one replaces, or empty.
        former_seq: Newest known record of that one.
        former_leaf_hash: Its leaf hash, hex.
    """

    log_id: str
    node: str = ""
    former_log_id: str = ""
    former_seq: int = 0
    former_leaf_hash: str = ""


class LogHead(Record, frozen=True, kw_only=True):
    """Number of records of a log, and the leaf hash of the newest one."""

    log_id: str
    size: int
    leaf_hash: str


class HeadsDetail(Record, frozen=True, kw_only=True, tag="heads"):
    """Heads of the other logs of a system that grew since the last such record."""

    logs: tuple[LogHead, ...]


class RepairDetail(Record, frozen=True, kw_only=True, tag="repair"):
    """
    A tail that a crash tore, or the other branch of a forked trail, was set aside.

    Attributes:
        fragment_bytes: Its length.
        fragment_sha256: Its SHA-256, hex.
        kept_as: Name of its file, beside the trail.
    """

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
    Summary of a batch.

    Attributes:
        count: Items.
        failed: Number of failed items.
    """

    count: int
    failed: int


class ResumeDetail(Record, frozen=True, kw_only=True, tag="resume"):
    """
    The audit log recovered after a write failed or hung.

    Attributes:
        cause: ``full``, ``write``, ``sync``, ``moved`` or ``hanging``.
        failed_at: Microseconds since 1970.
        rewritten_from: First record that was written again; the seq of this record if
            there was none.
        attempts: Number of attempts.
    """

    cause: str
    failed_at: int
    rewritten_from: int
    attempts: int


class PruneDetail(Record, frozen=True, kw_only=True, tag="prune"):
    """
    Old records were pruned.

    Attributes:
        first_seq: First record that this prune removes.
        next_seq: First record that stays.
        last_leaf_hash: Leaf hash of the last record that was removed, hex.
        roots: RFC 6962 subtree roots (compact range) of all records before *next_seq*,
            from the largest subtree to the smallest, hex.
        policy: Retention rule that applied.
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
    Step of an approval; in an intent record, the step about to be made.

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
    LogBegunDetail
    | HeadsDetail
    | RepairDetail
    | CountedDetail
    | MessageDetail
    | BatchDetail
    | ResumeDetail
    | PruneDetail
    | ApprovalDetail
)


class AuditEvent(Record, frozen=True, kw_only=True):
    """
    Audit record, with the facts that it shares with others.

    Attributes:
        format: 2. A new member means a new format.
        seq: Position, from 0, without gaps.
        prev: Leaf hash of the record before, 64 hex digits; zeros for the first.
        time: Microseconds since 1970-01-01T00:00:00Z.
        kind: Name of the operation, or ``system.…`` for system events.
        code: ``ok``, or the code of the error that was answered.
        facts: Hash of the facts line, hex; empty if there is none.
        bind: Commitment to what was answered, hex.
        revision: Number of the newest change when a use was decided, or of the change
            that an outcome is of; 0 outside a cluster.
        operation_id: Ties intent, stored document and outcome together.
        intent_log: Log that holds the intent of an outcome, if it is another one.
        version: Key version used or made, or 0.
        generation: Generation of the key after the operation, or 0.
        document_before: SHA-256 of the key document before, hex.
        document_after: SHA-256 of the key document after, hex; in an intent, of the
            one that is to be stored.
        set_digest: Keyed digest over all keys after a change, hex; where there are
            approvals, followed by the one over all approvals.
        caller: From the facts line, as all up to *policy*.
        parameters: Facts of the operation; never a payload.
        rule: Name of the rule that decided.
        policy: SHA-256 of the policy in force, hex.
        demands: Approvals required by the decision.
        approval_id: Approval that it is about, or that it used.
        approval_signatures: Approver signatures.
        digest: Keyed digest of the whole operation, hex.
    """

    repr_fields: ClassVar = ("seq", "kind", "phase", "code", "key_id")

    format: int
    seq: int
    prev: str
    time: int
    kind: str
    phase: Phase
    code: str
    request_id: str = ""
    facts: str = ""
    bind: str = ""
    revision: int = 0
    operation_id: str = ""
    intent_log: str = ""
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
    """
    Audit record with its leaf hash (RFC 6962, 64 hex digits).

    Attributes:
        log_id: Log of a cluster that it is in.
        node: Node of a cluster that writes the log.
    """

    repr_fields: ClassVar = ("event",)

    event: AuditEvent
    leaf_hash: str
    log_id: str = ""
    node: str = ""
