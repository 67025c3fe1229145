# SPDX-License-Identifier: MIT
"""The policy: which one is in force, why it decides so, what another would change."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, ClassVar

from msgspec import Meta

from hsm_core.model import (
    ApprovalDemand,
    CertificateNames,
    CertificateText,
    Line,
    PolicyOutcome,
    Record,
    Role,
)
from hsm_core.operations.base import Effect, Operation
from hsm_core.operations.names import (
    KeyName,
    KeyReference,
    Owner,
    Sequence53,
    Tags,
    Usages,
)

__all__ = [
    "ExplainPolicy",
    "PolicyChange",
    "PolicyExplanation",
    "PolicyInfo",
    "PolicyStatus",
    "PolicyTest",
    "RuleExplanation",
    "ShowPolicy",
    "TestPolicy",
]


class PolicyStatus(Record, frozen=True, kw_only=True):
    """
    Which policy is in force.

    Attributes:
        policy: Its SHA-256, hex, as it stands in the trail.
        source: ``file``, or the name of a built-in policy.
        current: False if the file that lies there now could not be put in force.
        failures: How often a file was refused since the HSM was opened.
    """

    policy: str = ""
    source: str = ""
    current: bool = True
    failures: int = 0


class PolicyInfo(Record, frozen=True, kw_only=True):
    """
    The policy in force.

    Attributes:
        policy: Its SHA-256, hex, as it stands in the trail.
        source: ``file``, or the name of a built-in policy.
        text: What it was read from; while *problem* says that a file is refused, that
            of the last good policy.
        warnings: What in it was probably not meant.
        loaded_at: When it was read.
        failures: How often a file was refused since the HSM was opened.
        problem: Why the file that lies there now is not in force; else empty.
    """

    policy: str
    source: str
    text: str
    warnings: tuple[str, ...] = ()
    loaded_at: datetime
    failures: int = 0
    problem: str = ""


class RuleExplanation(Record, frozen=True, kw_only=True):
    """
    Whether one rule holds in a request.

    Attributes:
        effect: ``deny``, ``require-approval`` or ``allow``.
        operation: The operation that the rule is about here: the one that is asked
            about, or a twin of it, such as ``Sign`` for ``SignBatch``.
        missing: Conditions that are not fulfilled, by their names in the file;
            ``except`` where it is excepted, ``key`` where there is none.
    """

    name: str
    effect: str
    operation: str = ""
    holds: bool
    missing: tuple[str, ...] = ()


class PolicyExplanation(Record, frozen=True, kw_only=True):
    """
    What the policy would say to a request.

    Attributes:
        rule: Which rule decides, as it would stand in the trail.
        policy: SHA-256 of the policy, hex.
        principal: Who would ask.
        roles: Which roles they would have.
        decided_as: Operations that the request is decided as: itself, then its twins.
            The strictest decision counts.
        demands: What other people would have to consent to.
        needed: What would be needed, a sentence each.
        rules: Every rule about this operation, by name.
    """

    outcome: PolicyOutcome
    rule: str
    policy: str
    principal: str = ""
    roles: tuple[Role, ...] = ()
    decided_as: tuple[str, ...] = ()
    demands: tuple[ApprovalDemand, ...] = ()
    needed: tuple[str, ...] = ()
    rules: tuple[RuleExplanation, ...] = ()


class PolicyChange(Record, frozen=True, kw_only=True):
    """
    A recorded request that another policy would answer otherwise.

    Attributes:
        seq: Its record.
        time: When, in microseconds since 1970.
        before: What was decided.
        before_rule: By which rule, as it stands in the trail.
        after: What would be decided.
        after_rule: By which rule.
        before_demands: What was asked of other people.
        after_demands: What would be asked of them.
    """

    seq: int
    time: int
    principal: str
    operation: str
    key_id: str = ""
    before: PolicyOutcome
    before_rule: str
    after: PolicyOutcome
    after_rule: str
    before_demands: tuple[ApprovalDemand, ...] = ()
    after_demands: tuple[ApprovalDemand, ...] = ()


class PolicyTest(Record, frozen=True, kw_only=True):
    """
    What a policy would have changed.

    Attributes:
        policy: SHA-256 of the policy that was tried, hex.
        warnings: What in it was probably not meant.
        start_seq: First record that was looked at.
        next_seq: Where to go on; None at the head of the trail.
        requests: Requests that were decided again.
        changes: Those that would be answered otherwise, up to 1000.
    """

    policy: str
    warnings: tuple[str, ...] = ()
    start_seq: int
    next_seq: int | None
    requests: int
    changes: tuple[PolicyChange, ...] = ()


class ShowPolicy(Operation[PolicyInfo], frozen=True, kw_only=True):
    """Return the policy in force, and whether a file was refused since it is."""

    effect: ClassVar = Effect.VIEW
    while_locked: ClassVar = True


class ExplainPolicy(Operation[PolicyExplanation], frozen=True, kw_only=True):
    """
    Say what the policy would say to a request, which rule decides, and what is needed.

    Nothing is done. Of a key that is to be made, its facts are given here. A question
    that can't be answered is an `InvalidInputError`: facts of a key are given and the
    operation states none, or no key is named and a rule depends on it.

    Attributes:
        operation: Name of the operation, such as ``Sign``.
        principal: Who would ask; no such person need exist. Left empty, it is whom the
            policy's *identities* know by the certificate, whether or not certificates
            alone name anybody here.
        roles: Roles that they would have; nothing where the policy says it.
        key_id: UUID or name of the key that it would be about, or empty.
        other_key_ids: Keys that it would name besides, such as the one that wraps.
        algorithm: Of a key that would be made.
        usages: Of a key that would be made; empty for its algorithm's defaults.
        name: Of a key that would be made, or the new name of one that is there.
        owner: The same of its owner.
        tags: The same of its tags.
        certificate_sha256: Fingerprint of their client certificate, hex, or empty.
        certificate_subject: Its subject, as RFC 4514 writes it, or empty.
        certificate_names: Its alternative names, such as ``dns:ci.example.com``.
        source_address: Their network address, or empty.
        single_use: Whether they would show a token with an id for the first time.
        at: When; None means now.
    """

    effect: ClassVar = Effect.VIEW

    operation: Annotated[str, Meta(min_length=1, max_length=64)]
    principal: Line = ""
    roles: Annotated[tuple[Role, ...], Meta(max_length=4)] = ()
    key_id: Annotated[str, Meta(max_length=64)] = ""
    other_key_ids: Annotated[tuple[KeyReference, ...], Meta(max_length=4)] = ()
    algorithm: Annotated[str, Meta(max_length=64)] = ""
    usages: Usages = ()
    name: KeyName | None = None
    owner: Owner | None = None
    tags: Tags | None = None
    certificate_sha256: Line = ""
    certificate_subject: CertificateText = ""
    certificate_names: CertificateNames = ()
    source_address: Line = ""
    single_use: bool = False
    at: Annotated[datetime, Meta(tz=True)] | None = None


class TestPolicy(Operation[PolicyTest], frozen=True, kw_only=True):
    """
    Replay the trail against a policy, and list every request that it changes.

    Nothing is put in force. Requests that the policy was not asked about, and reads,
    which are not recorded where they succeed, are not among them.

    Attributes:
        policy: The policy: the text of a file.
        start_seq: First record to look at.
        limit: Most records to look at; ``next_seq`` tells where to go on.
    """

    effect: ClassVar = Effect.VIEW

    policy: Annotated[str, Meta(max_length=262_144)]
    start_seq: Sequence53 = 0
    limit: Annotated[int, Meta(ge=1, le=100_000)] = 10_000
