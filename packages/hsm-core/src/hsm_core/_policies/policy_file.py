# SPDX-License-Identifier: MIT
"""Policy file: text, line numbers, and schema. The page *Policy* documents it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Final, Literal, TypeAlias

import yaml
from msgspec import Meta, field

from hsm_core._files import MAX_SETTING_BYTES
from hsm_core._json import Json, scan_json
from hsm_core.errors import InvalidInputError, MalformedError
from hsm_core.model import Record, Role
from hsm_core.settings import PolicyProfile

_MAX_DEPTH: Final = 16
_MAX_NODES: Final = 50_000
_INT: Final = re.compile(r"0|-?[1-9][0-9]{0,17}")
_NUMBER_LIKE: Final = re.compile(r"[-+]?[0-9][0-9_]*")
_WORDS: Final[dict[str, bool | None]] = {
    "true": True,
    "false": False,
    "null": None,
    "~": None,
    "": None,
}

Path = tuple[str | int, ...]
"""Path of a value in a file: field names and list positions."""

Lines = dict[Path, int]
"""Line of each path in a file, from 1."""


def policy_fault(message: str, path: Path = (), line: int = 0) -> InvalidInputError:
    """Return the error that a policy file is refused with; it names the place."""
    where = f"line {line}: " if line else ""
    at = shown(path)
    facts: dict[str, str | int] = {"field": at or "policy"}
    if line:
        facts["line"] = line
    return InvalidInputError(f"{where}{at}{': ' if at else ''}{message}", **facts)


def shown(path: Path) -> str:
    """Return a place as people write it: ``rules[2].match.roles``."""
    text = ""
    for step in path:
        text += f"[{step}]" if isinstance(step, int) else f".{step}" if text else step
    return text


def read_tree(text: str, what: str = "policy") -> tuple[Json, Lines]:
    """
    Read a text as JSON if it begins with ``{``, and as YAML otherwise.

    Args:
        text: All of it.

        what: What messages call it.

    Returns:
        Its tree, and the lines of a YAML text.

    Raises:
        InvalidInputError: It is too long or not well-formed, repeats a name, or uses
            what is refused here; ``facts`` name the ``line`` where it is known.
    """
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise policy_fault("The text contains a lone surrogate.") from None
    if size > MAX_SETTING_BYTES:
        raise policy_fault(
            f"A {what} must be at most {MAX_SETTING_BYTES} bytes, got {size}."
        )
    if text.lstrip().startswith("{"):
        try:
            return scan_json(text.encode()), {}
        except MalformedError as error:
            raise policy_fault(str(error)) from None
    try:
        return _Tree(text, what).read()
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 0
        raise policy_fault(f"Not valid YAML: {error.problem}.", (), line) from None
    except yaml.reader.ReaderError as error:
        raise policy_fault(
            f"Not valid YAML: the character U+{error.character:04X} is not allowed.",
            (),
            text.count("\n", 0, error.position) + 1,
        ) from None
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        if isinstance(error, InvalidInputError):
            raise
        raise policy_fault("Not valid YAML.") from None


class _Tree:
    """Builds the tree of one YAML document."""

    def __init__(self, text: str, what: str) -> None:
        self._what = what
        self._events: Iterator[yaml.Event] = yaml.parse(text, Loader=yaml.SafeLoader)
        self._nodes = 0
        self.lines: Lines = {}

    def read(self) -> tuple[Json, Lines]:
        """Read the one document that there must be."""
        self._next()  # the beginning of the stream
        if isinstance(self._next(), yaml.StreamEndEvent):
            raise policy_fault(f"The {self._what} is empty.")
        tree = self._node(self._next(), ())
        self._next()  # the end of the document
        last = self._next()
        if not isinstance(last, yaml.StreamEndEvent):
            raise policy_fault(
                f"A {self._what} must be a single YAML document.", (), _line(last)
            )
        return tree, self.lines

    def _next(self) -> yaml.Event:
        return next(self._events)

    def _node(self, event: yaml.Event, path: Path) -> Json:
        line = _line(event)
        self._nodes += 1
        if len(path) > _MAX_DEPTH:
            raise policy_fault(
                f"Nesting must be at most {_MAX_DEPTH} levels deep.", (), line
            )
        if self._nodes > _MAX_NODES:
            raise policy_fault(
                f"A {self._what} must have at most {_MAX_NODES} values.", (), line
            )
        if isinstance(event, yaml.AliasEvent) or event.anchor is not None:
            raise policy_fault("Anchors and aliases are not supported.", path, line)
        if event.tag is not None:
            raise policy_fault("Tags (!…) are not supported.", path, line)
        self.lines[path] = line
        if isinstance(event, yaml.ScalarEvent):
            return self._scalar(event, path, line)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(path)
        return self._mapping(path)

    def _scalar(self, event: yaml.ScalarEvent, path: Path, line: int) -> Json:
        text = str(event.value)
        _check_text(text, path, line)
        if event.style is not None:
            return text
        if text in _WORDS:
            return _WORDS[text]
        if _INT.fullmatch(text):
            return int(text)
        if _NUMBER_LIKE.fullmatch(text):
            raise policy_fault("Numbers must be written as in JSON.", path, line)
        return text

    def _sequence(self, path: Path) -> list[Json]:
        found: list[Json] = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            found.append(self._node(event, (*path, len(found))))
        return found

    def _mapping(self, path: Path) -> dict[str, Json]:
        found: dict[str, Json] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            line = _line(event)
            if not isinstance(event, yaml.ScalarEvent):
                raise policy_fault("A field name must be a string.", path, line)
            if event.anchor is not None or event.tag is not None:
                raise policy_fault("Anchors and tags are not supported.", path, line)
            name = str(event.value)
            _check_text(name, path, line)
            if name in found:
                raise policy_fault("Duplicate field name.", (*path, name), line)
            found[name] = self._node(self._next(), (*path, name))
        return found


def _line(event: yaml.Event) -> int:
    return int(event.start_mark.line) + 1


def _check_text(text: str, path: Path, line: int) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise policy_fault("The value contains a lone surrogate.", path, line) from None


_WHERE: Final = re.compile(r" - at (`key` in )?`\$([^`]*)`\Z")
"""Suffix of msgspec's validation messages."""

_STEP: Final = re.compile(r"\.(\w+)|\[([0-9]+)\]|(\[\.\.\.\])")


def misfit(message: str, lines: Lines) -> InvalidInputError:
    """Return the error for a tree that does not fit the schema."""
    where = _WHERE.search(message)
    if where is None:
        return policy_fault(f"{message}.", (), _line_of((), lines))
    problem = message[: where.start()] + (", as a name" if where[1] else "")
    path = tuple(_steps(where[2]))
    return policy_fault(f"{problem}.", path, _line_of(path, lines))


def _steps(path: str) -> Iterator[str | int]:
    """Give the steps of a place that msgspec names, as far as it names it."""
    for name, number, unnamed in _STEP.findall(path):
        if unnamed:
            return  # It does not tell which of the names of a mapping it is.
        yield int(number) if number else name


def _line_of(path: Path, lines: Lines) -> int:
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 0)


_Name: TypeAlias = Annotated[
    str, Meta(min_length=1, max_length=128, pattern=r"^[^\x00-\x1f\x7f-\x9f]*\Z")
]
_Names: TypeAlias = Annotated[tuple[_Name, ...], Meta(min_length=1, max_length=1000)]
_Party: TypeAlias = Annotated[str, Meta(min_length=1, max_length=256)]
_Claim: TypeAlias = Annotated[str, Meta(max_length=1024)] | bool | int
ClaimValue: TypeAlias = (
    _Claim | Annotated[tuple[_Claim, ...], Meta(min_length=1, max_length=100)]
)
"""Accepted value of a claim, or several of them."""
_Clock: TypeAlias = Annotated[
    str, Meta(pattern=r"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)\Z")
]
_Roles: TypeAlias = Annotated[tuple[Role, ...], Meta(min_length=1, max_length=4)]
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
    roles: _Roles | None = None
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
    roles: _Roles | None = None
    distinct_roles: _Roles | None = None
    ttl_seconds: Annotated[int, Meta(ge=1, le=366 * 24 * 3600)] = 3600
    uses: Annotated[int, Meta(ge=1, le=1_000_000)] = 1
    signed: bool = False


class RuleSection(Record, frozen=True, kw_only=True, rename={"except_": "except"}):
    """
    One rule.

    Attributes:
        name: Audit records name the rule by it. Not "default-deny" or "system…".
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
    Identity rule: principal and roles of a token, or of a client certificate.

    It has at least one condition about certificates, or issuer, audience and at least
    one claim. All conditions must hold; of each, one value is enough.

    Attributes:
        principal: Name of the principal.
        principal_claim: Claim that holds the name, in place of `principal`.
        principal_prefix: Text before the name in the claim.
        roles: Roles of the principal.
        issuer: Issuer of the token (``iss``), as in ``--token-issuers``.
        audience: Required audience of the token (``aud``).
        claims: Required values by claim; ``PREFIX*`` matches all that begin so. If a
            claim is a list, one element is enough. ``/a/b`` (JSON Pointer) is member
            ``b`` of claim ``a``.
        certificates: SHA-256 of the certificate, 64 hex digits.
        certificate_subjects: Its subject, as RFC 4514 writes it. Whole values only.
        certificate_names: Its alternative names, such as ``dns:ci.example.com``,
            ``email:``, ``ip:`` or ``uri:``. Whole values only.
    """

    principal: _Name | None = None
    principal_claim: _Name | None = None
    principal_prefix: _Name | None = None
    roles: _Roles
    issuer: _Party | None = None
    audience: _Party | None = None
    claims: (
        Annotated[dict[_Party, ClaimValue], Meta(min_length=1, max_length=32)] | None
    ) = None
    certificates: _Names | None = None
    certificate_subjects: _Names | None = None
    certificate_names: _Names | None = None

    @property
    def is_about_tokens(self) -> bool:
        """Whether a condition is about tokens."""
        asked = (self.issuer, self.audience, self.claims)
        named = (self.principal_claim, self.principal_prefix)
        return any(given is not None for given in (*asked, *named))

    @property
    def has_certificate_conditions(self) -> bool:
        """Whether a condition is about certificates."""
        return not (
            self.certificates is None
            and self.certificate_subjects is None
            and self.certificate_names is None
        )


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
        identities: Principal and roles by claims of tokens, of issuers that the server
            trusts (``--token-issuers``), or by client certificate
            (``--client-cert-identities``).
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
