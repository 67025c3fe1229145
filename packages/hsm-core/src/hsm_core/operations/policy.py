# SPDX-License-Identifier: MIT
"""Policy: status, explanation, replay."""

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
from hsm_core.operations.base import (
    Effect,
    KeyName,
    KeyReference,
    Operation,
    Owner,
    Route,
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
    Status of the policy.

    Attributes:
        policy: SHA-256 of the policy, hex, as recorded in the audit log.
        source: ``file``, or the name of a built-in policy.
        current: False if the present file could not be loaded.
        failures: Number of rejected files since the HSM was opened.
    """

    policy: str = ""
    source: str = ""
    current: bool = True
    failures: int = 0


class PolicyInfo(Record, frozen=True, kw_only=True):
    """
    The policy in force.

    Attributes:
        policy: SHA-256 of the policy, hex, as recorded in the audit log.
        source: ``file``, or the name of a built-in policy.
        text: Source text; while *problem* reports a rejected file, the text of the last
            valid policy.
        warnings: Probable mistakes in the policy.
        loaded_at: Time at which it was loaded.
        failures: Number of rejected files since the HSM was opened.
        problem: Reason why the present file is not in force; else empty.
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
    Evaluation of one rule for a request.

    Attributes:
        effect: ``deny``, ``require-approval`` or ``allow``.
        operation: Operation matched by the rule: the explained one or an equivalent
            one, such as ``Sign`` for ``SignBatch``.
        missing: Unmet conditions, by their names in the file; ``except`` if the
            exception applies, ``key`` if the request has no key.
    """

    name: str
    effect: str
    operation: str = ""
    holds: bool
    missing: tuple[str, ...] = ()


class PolicyExplanation(Record, frozen=True, kw_only=True):
    """
    Policy decision for a hypothetical request.

    Attributes:
        rule: Deciding rule, as it would be recorded.
        policy: SHA-256 of the policy, hex.
        principal: Caller of the request.
        roles: Roles of the caller.
        decided_as: Operations that are evaluated: the operation, then its equivalents.
            The strictest decision applies.
        demands: Required approvals.
        needed: What is missing for the request to be allowed, one sentence each.
        rules: All rules for this operation, by name.
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
    Recorded request with a different decision under the tested policy.

    Attributes:
        seq: Sequence number of the audit record.
        time: Time of the record, in microseconds since 1970.
        before: Recorded decision.
        before_rule: Recorded rule.
        after: Decision under the tested policy.
        after_rule: Rule of that decision.
        before_demands: Approvals that were required.
        after_demands: Approvals that would be required.
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
    Result of a policy replay.

    Attributes:
        policy: SHA-256 of the tested policy, hex.
        warnings: Probable mistakes in the policy.
        start_seq: First record examined.
        next_seq: Start of the next call; None at the head of the audit log.
        requests: Number of requests evaluated.
        changes: Requests with a different decision, up to 1000.
    """

    policy: str
    warnings: tuple[str, ...] = ()
    start_seq: int
    next_seq: int | None
    requests: int
    changes: tuple[PolicyChange, ...] = ()


class ShowPolicy(Operation[PolicyInfo], frozen=True, kw_only=True):
    """Return the policy in force and its load failures."""

    effect: ClassVar = Effect.VIEW
    while_locked: ClassVar = True
    route: ClassVar = Route("GET", "/policy")


class ExplainPolicy(Operation[PolicyExplanation], frozen=True, kw_only=True):
    """
    Explain the policy decision for a request: outcome, rule and missing conditions.

    Nothing is executed. For operations that create a key, pass its facts here. Raises
    `InvalidInputError` if key facts are passed for an operation that has none, or if a
    rule depends on the key and none is named.

    Attributes:
        operation: Name of the operation, such as ``Sign``.
        principal: Caller; need not exist. Empty means the principal that the policy's
            *identities* assign to the token or the certificate, even if sign-in by
            certificate alone is disabled.
        roles: Roles of the caller; empty if the policy assigns them.
        key_id: ID or name of the key, or empty.
        other_key_ids: Further keys, such as the wrapping key.
        algorithm: Algorithm of the new key.
        usages: Usages of the new key; empty for the algorithm's defaults.
        name: Name of the new key, or new name of an existing key.
        owner: Owner, likewise.
        tags: Tags, likewise.
        token_claims: Claims of a token of another issuer, as a JSON object, or empty.
            They are not verified.
        certificate_sha256: SHA-256 fingerprint of the client certificate, hex, or
            empty.
        certificate_subject: Subject of the certificate (RFC 4514), or empty.
        certificate_names: Alternative names of the certificate, such as
            ``dns:ci.example.com``.
        source_address: Network address of the caller, or empty.
        single_use: Whether the caller presents a token ID for the first time.
        at: Time of the request; None means now.
    """

    effect: ClassVar = Effect.VIEW
    route: ClassVar = Route(
        "POST",
        "/policy/explain",
        example={
            "operation": "Sign",
            "principal": "ci-release",
            "roles": ["Service"],
            "key_id": "release-signer",
            "source_address": "10.1.2.3",
        },
    )

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
    token_claims: Annotated[str, Meta(max_length=8192)] = ""
    certificate_sha256: Line = ""
    certificate_subject: CertificateText = ""
    certificate_names: CertificateNames = ()
    source_address: Line = ""
    single_use: bool = False
    at: Annotated[datetime, Meta(tz=True)] | None = None


class TestPolicy(Operation[PolicyTest], frozen=True, kw_only=True):
    """
    Replay the audit log against a policy and list requests with other decisions.

    The policy is not put in force. Requests without a policy decision, and successful
    reads, which are not recorded, are not replayed.

    Attributes:
        policy: Text of the policy file.
        start_seq: First record to examine.
        limit: Maximum number of records; continue at ``next_seq``.
    """

    effect: ClassVar = Effect.VIEW
    route: ClassVar = Route(
        "POST",
        "/policy/test",
        example={"policy": "version: 1\nextends: strict\n"},
    )

    policy: Annotated[str, Meta(max_length=262_144)]
    start_seq: Sequence53 = 0
    limit: Annotated[int, Meta(ge=1, le=100_000)] = 10_000
