# SPDX-License-Identifier: MIT
"""Schema of the policy file; the page *Policy* documents it."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, field

from hsm_core.model import Record, Role
from hsm_core.settings import PolicyProfile

_Name: TypeAlias = Annotated[
    str, Meta(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f-\x9f]*\Z")
]
_Names: TypeAlias = Annotated[tuple[_Name, ...], Meta(min_length=1, max_length=1000)]
_Clock: TypeAlias = Annotated[
    str, Meta(pattern=r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)\Z")
]
_Instant: TypeAlias = Annotated[str, Meta(min_length=1, max_length=40)]
_Text: TypeAlias = Annotated[str, Meta(max_length=1024)]
_RuleName: TypeAlias = Annotated[
    str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,62}\Z", max_length=63)
]
_GroupName: TypeAlias = Annotated[
    str, Meta(pattern=r"^[a-z][a-z0-9-]{0,62}\Z", max_length=63)
]


class RuleEffect(StrEnum):
    """What a rule does where it matches."""

    DENY = "deny"
    REQUIRE_APPROVAL = "require-approval"
    ALLOW = "allow"


class Day(StrEnum):
    """A day of the week."""

    MON = "mon"
    TUE = "tue"
    WED = "wed"
    THU = "thu"
    FRI = "fri"
    SAT = "sat"
    SUN = "sun"


class Fact(StrEnum):
    """What follows from a key's algorithm."""

    PQC = "pqc"
    HYBRID = "hybrid"
    KEM = "kem"
    SIGNATURE = "signature"


class TimeSection(Record, frozen=True, kw_only=True, rename={"from_": "from"}):
    """
    When a rule holds.

    Attributes:
        days: On these days; a window past midnight belongs to the day it begins on.
        from_: From this time of the day on, ``HH:MM``; 00:00 by default.
        to: Until before this time of the day, ``HH:MM``; 24:00 by default. If it is
            earlier than ``from``, the window goes past midnight.
        zone: Whose clock *days*, ``from`` and *to* are read on: ``UTC`` or a name of
            the IANA data base. The clock on the wall counts, daylight saving included.
        not_before: From this instant on: ISO 8601, with an offset or ``Z``.
        not_after: Until before this instant, written in the same way.
    """

    days: Annotated[tuple[Day, ...], Meta(min_length=1, max_length=7)] | None = None
    from_: _Clock = "00:00"
    to: _Clock = "24:00"
    zone: _Name = "UTC"
    not_before: _Instant = ""
    not_after: _Instant = ""


class MatchSection(Record, frozen=True, kw_only=True):
    """
    What a rule is about: all conditions must hold; of each, one value is enough.

    Attributes:
        operations: Operations, or groups of them.
        algorithms: Of the key, in any accepted spelling; one also stands for every
            composite that has it as a component.
        families: Families of algorithms; a composite is of those of its components.
        categories: NIST's security categories, 0 to 5.
        facts: What follows from the algorithm.
        usages: What the key may be used for.
        tags: Of the key.
        owners: Of the key; ``self`` is who asks.
        key_names: Of the key; ``PREFIX*`` stands for all that begin so.
        principals: Who asks; ``PREFIX*`` stands for all that begin so.
        roles: Of who asks.
        certificates: SHA-256 of the client certificate, 64 hex digits.
        certificate_subjects: Its subject, as RFC 4514 writes it, such as
            ``CN=ci,O=Example``; ``PREFIX*`` stands for all that begin so.
        certificate_names: Its alternative names, such as ``dns:ci.example.com``,
            ``email:``, ``ip:`` or ``uri:``; ``PREFIX*`` stands for all that begin so.
        networks: Address of who asks, as CIDR.
        single_use: Whether they show a token with an id (``jti``) that they have not
            used for anything before. Where a rule says this, each token is spent by its
            first request.
        time: When.
    """

    operations: _Names | None = None
    algorithms: _Names | None = None
    families: _Names | None = None
    categories: (
        Annotated[
            tuple[Annotated[int, Meta(ge=0, le=5)], ...],
            Meta(min_length=1, max_length=6),
        ]
        | None
    ) = None
    facts: Annotated[tuple[Fact, ...], Meta(min_length=1, max_length=4)] | None = None
    usages: _Names | None = None
    tags: _Names | None = None
    owners: _Names | None = None
    key_names: _Names | None = None
    principals: _Names | None = None
    roles: Annotated[tuple[Role, ...], Meta(min_length=1, max_length=4)] | None = None
    certificates: _Names | None = None
    certificate_subjects: _Names | None = None
    certificate_names: _Names | None = None
    networks: _Names | None = None
    single_use: bool | None = None
    time: TimeSection | None = None


class ApprovalSection(Record, frozen=True, kw_only=True):
    """
    What other people must consent to.

    Attributes:
        quorum: How many of them; 1 by default, and as many as *distinct_roles* are.
        roles: Each of them must have one of these; by default any that may approve.
        distinct_roles: Each of these must be held by a person of its own among them.
        ttl_seconds: How long the request may be granted and used.
        uses: How often it may be used.
        signed: Whether each must sign with a key that *approvers* names.
    """

    quorum: Annotated[int, Meta(ge=1, le=100)] | None = None
    roles: Annotated[tuple[Role, ...], Meta(min_length=1, max_length=4)] | None = None
    distinct_roles: (
        Annotated[tuple[Role, ...], Meta(min_length=1, max_length=4)] | None
    ) = None
    ttl_seconds: Annotated[int, Meta(ge=1, le=366 * 24 * 3600)] = 3600
    uses: Annotated[int, Meta(ge=1, le=1_000_000)] = 1
    signed: bool = False


class RuleSection(Record, frozen=True, kw_only=True, rename={"except_": "except"}):
    """
    One rule.

    Attributes:
        name: Stands in the trail where it decided.
        effect: Deny beats require-approval, and that beats allow.
        description: For people.
        match: What it is about; everything where there is none.
        except_: What it is not about, though *match* says so; written as *match*.
        approval: For ``require-approval`` alone: what is asked for.
    """

    name: _RuleName
    effect: RuleEffect
    description: _Text = ""
    match: MatchSection = MatchSection()
    except_: MatchSection | None = None
    approval: ApprovalSection | None = None


class IdentitySection(Record, frozen=True, kw_only=True):
    """
    Whom a client certificate names, where no token is shown.

    There is a condition at least, and all must hold; of each, one value is enough. A
    value is meant as a whole: there is no ``*`` here.

    Attributes:
        principal: Who it is; no two sections have the same person.
        roles: What they are.
        certificates: SHA-256 of the certificate, 64 hex digits.
        certificate_subjects: Its subject, as RFC 4514 writes it.
        certificate_names: Its alternative names, such as ``dns:ci.example.com``,
            ``email:``, ``ip:`` or ``uri:``.
    """

    principal: _Name
    roles: Annotated[tuple[Role, ...], Meta(min_length=1, max_length=4)]
    certificates: _Names | None = None
    certificate_subjects: _Names | None = None
    certificate_names: _Names | None = None


class PolicyFile(Record, frozen=True, kw_only=True):
    """
    A policy.

    Attributes:
        version: 1.
        extends: A built-in policy, to which this one adds; without it, nothing is
            granted but what stands here.
        description: For people.
        groups: Names for lists of operations, to be used wherever operations are.
        grants: Operations, or groups of them, by role.
        revoked_uses: What may still be done with a revoked version, of GetPublicKey,
            Verify and VerifyMac.
        rules: In any order.
        approvers: Public keys of people that sign approvals, by principal.
        identities: Whom client certificates name where no token is shown; this counts
            only where the server was told so (``--client-cert-identities``).
        distinct_certificates: Whether two people with the same client certificate count
            as one where others must agree; false suits a proxy that shows one
            certificate for everybody.
    """

    version: Literal[1]
    extends: PolicyProfile | None = None
    description: _Text = ""
    groups: Annotated[dict[_GroupName, _Names], Meta(max_length=100)] = field(
        default_factory=dict
    )
    grants: dict[Role, Annotated[tuple[_Name, ...], Meta(max_length=1000)]] = field(
        default_factory=dict
    )
    revoked_uses: Annotated[tuple[_Name, ...], Meta(max_length=10)] | None = None
    rules: Annotated[tuple[RuleSection, ...], Meta(max_length=1000)] = ()
    approvers: dict[
        _Name,
        Annotated[
            tuple[Annotated[str, Meta(min_length=1, max_length=2048)], ...],
            Meta(min_length=1, max_length=16),
        ],
    ] = field(default_factory=dict)
    identities: Annotated[tuple[IdentitySection, ...], Meta(max_length=1000)] = ()
    distinct_certificates: bool = True
