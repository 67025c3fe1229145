# SPDX-License-Identifier: MIT
"""A policy as it is enforced: operations, time windows, rules."""

from __future__ import annotations

import errno
import hashlib
import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final, TypeAlias
from zoneinfo import ZoneInfo

import msgspec
from msgspec.structs import replace

from hsm_core._policies.certificate_identities import KnownPerson
from hsm_core._policies.policy_file import (
    Day,
    Path,
    RuleEffect,
    TimeSection,
    policy_fault,
)
from hsm_core._policies.token_identities import TokenIdentity
from hsm_core.algorithms import KeyUsage
from hsm_core.errors import UnavailableError
from hsm_core.identities import SYSTEM_PREFIX, identity
from hsm_core.model import ApprovalDemand, Caller, Role
from hsm_core.operations import LOCAL_OPERATIONS, OPERATIONS
from hsm_core.protocols import KeyFacts, KeyTerms, NameTerms

DEFAULT_DENY: Final = "default-deny"
"""Pseudo-rule of a request that no role or rule grants."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST: Final = int(datetime.max.replace(tzinfo=UTC).timestamp()) - 86400 * 2
_DAYS: Final = tuple(Day)
_WHOLE_DAY: Final = 24 * 60


class TimeWindow(msgspec.Struct, frozen=True, kw_only=True):
    """
    When a rule holds.

    Attributes:
        days: Days of the week, Monday being 0; None for all.
        begin: Minute of the day at which it begins.
        end: Minute of the day before which it ends; on the next day, if that is not
            later than *begin*.
        zone: On whose clock.
        not_before: Microseconds since 1970, or None.
        not_after: Microseconds since 1970, or None.
    """

    days: frozenset[int] | None
    begin: int
    end: int
    zone: ZoneInfo
    not_before: int | None
    not_after: int | None

    def holds(self, at: int) -> bool:
        """Return whether an instant, in microseconds since 1970, lies within it."""
        if self.not_before is not None and at < self.not_before:
            return False
        if self.not_after is not None and at >= self.not_after:
            return False
        if self.days is None and (self.begin, self.end) == (0, _WHOLE_DAY):
            return True
        minute, day = _on_the_wall(self.zone, at // 1_000_000)
        if self.begin < self.end:
            return self.begin <= minute < self.end and self._on(day)
        if minute >= self.begin:
            return self._on(day)
        return minute < self.end and self._on((day - 1) % 7)

    def _on(self, day: int) -> bool:
        return self.days is None or day in self.days

    def stated(self) -> list[object]:
        """Return it in a form that can be hashed."""
        days = None if self.days is None else sorted(self.days)
        span = [self.begin, self.end, self.not_before, self.not_after]
        return [days, *span, self.zone.key]


@lru_cache(maxsize=256)
def _on_the_wall(zone: ZoneInfo, second: int) -> tuple[int, int]:
    """Return minute of the day and day of the week; many windows ask for the same."""
    shown = _EPOCH + timedelta(seconds=max(min(second, _LATEST), 0))
    local = shown.astimezone(zone)
    return local.hour * 60 + local.minute, local.weekday()


def read_window(section: TimeSection, path: Path) -> TimeWindow:
    """
    Return the window that a section of a policy file means.

    Raises:
        InvalidInputError: It is empty, or holds an instant or zone that is none.
        UnavailableError: The zone can't be read now.
    """
    begin, end = _minute(section.from_), _minute(section.to)
    if begin == end or begin == _WHOLE_DAY:
        raise policy_fault("from and to must differ.", (*path, "to"))
    not_before = _instant(section.not_before, (*path, "not_before"))
    not_after = _instant(section.not_after, (*path, "not_after"))
    if None not in (not_before, not_after) and (not_before or 0) >= (not_after or 0):
        raise policy_fault(
            "not_after must be later than not_before.", (*path, "not_after")
        )
    days = None
    if section.days is not None and len(set(section.days)) < len(_DAYS):
        days = frozenset(_DAYS.index(day) for day in section.days)
    return TimeWindow(
        days=days,
        begin=begin,
        end=end,
        zone=_zone(section.zone, (*path, "zone")),
        not_before=not_before,
        not_after=not_after,
    )


def _minute(clock: str) -> int:
    hours, _, minutes = clock.partition(":")
    return int(hours) * 60 + int(minutes)


def _instant(text: str, path: Path) -> int | None:
    if not text:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise policy_fault(
            "The time must be ISO 8601, such as 2030-01-31T12:00:00Z.", path
        ) from None
    if found.tzinfo is None:
        raise policy_fault("The time must have a UTC offset, or Z.", path)
    try:
        return (found - _EPOCH) // timedelta(microseconds=1)
    except OverflowError:
        raise policy_fault("The time must lie in the years 1 to 9999.", path) from None


_SHORTAGES: Final = {errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO}

_NO_ZONES: Final = frozenset({"localtime", "posixrules", "right"})
"""Files of the data base that follow this machine's settings, or leap seconds."""


def _zone(name: str, path: Path) -> ZoneInfo:
    try:
        if name.partition("/")[0] in _NO_ZONES:
            raise LookupError(name)
        return ZoneInfo(name)
    except (LookupError, ValueError, OSError) as error:
        if isinstance(error, OSError) and error.errno in _SHORTAGES:
            raise UnavailableError("The time zones can't be read now.") from error
        raise policy_fault(
            f"Unknown time zone {name!r}. Use an IANA name, such as Europe/Vienna.",
            path,
        ) from None


Network: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network
_Address: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
_THE_HSM: Final = SYSTEM_PREFIX.rstrip(".")


def address_of(text: str) -> _Address | None:
    """Return a network address, an IPv4 one where it is only mapped; None if none."""
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(found, ipaddress.IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped
    return found


class CallerTerms(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked of a caller: all that is not None; of each, one value is enough."""

    principals: NameTerms | None = None
    roles: frozenset[Role] | None = None
    certificates: frozenset[str] | None = None
    certificate_subjects: NameTerms | None = None
    certificate_names: NameTerms | None = None
    networks: tuple[Network, ...] | None = None
    single_use: bool | None = None

    def fulfilled_by(self, caller: Caller) -> bool:
        """Return whether a caller is meant."""
        return (
            (self.roles is None or not self.roles.isdisjoint(caller.roles))
            and (
                self.principals is None
                or self.principals.include(identity(caller.principal))
            )
            and (
                self.certificates is None
                or caller.certificate_sha256.lower() in self.certificates
            )
            and (
                self.certificate_subjects is None
                or self.certificate_subjects.include(caller.certificate_subject)
            )
            and (
                self.certificate_names is None
                or any(map(self.certificate_names.include, caller.certificate_names))
            )
            and (self.networks is None or self._is_near(caller))
            and self.single_use in (None, caller.single_use)
        )

    def _is_near(self, caller: Caller) -> bool:
        address = address_of(caller.source_address)
        return address is not None and any(
            address in network for network in self.networks or ()
        )

    @property
    def is_open(self) -> bool:
        """Whether nothing is asked, so that every caller is meant."""
        return self == _ANYBODY

    @property
    def names_the_hsm(self) -> bool:
        """Whether one of the HSM's own doings is named."""
        named = self.principals
        return named is not None and any(
            name.startswith(_THE_HSM) for name in (*named.exact, *named.prefixes)
        )


_ANYBODY = CallerTerms()
_ANY_KEY = KeyTerms()


class Conditions(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a rule is about.

    Attributes:
        operations: Names of operations; None for all.
        own: Whether the caller's own keys are meant besides those of other owners.
    """

    operations: frozenset[str] | None = None
    caller: CallerTerms = _ANYBODY
    key: KeyTerms = _ANY_KEY
    own: bool = False
    window: TimeWindow | None = None

    @property
    def is_about_keys(self) -> bool:
        """Whether there is a condition that only a key can fulfil."""
        return self.own or not self.key.is_open

    @property
    def is_open(self) -> bool:
        """Whether there is no condition."""
        return self == Conditions()

    def names(self, kind: str) -> bool:
        """Return whether an operation is meant, by its name or with all others."""
        return self.operations is None or kind in self.operations

    def concern(self, kind: str, caller: Caller, at: int) -> bool:
        """Return whether all conditions hold but those of the key."""
        return (
            self.names(kind)
            and self.caller.fulfilled_by(caller)
            and (self.window is None or self.window.holds(at))
        )

    def key_terms(self, caller: Caller) -> KeyTerms:
        """Return what is asked of the key if this caller asks."""
        if not self.own:
            return self.key
        owners = (self.key.owners or frozenset()) | {identity(caller.principal)}
        return replace(self.key, owners=owners)


class PolicyRule(msgspec.Struct, frozen=True, kw_only=True):
    """
    One rule.

    Attributes:
        demand: What is asked for; only where the effect is to require approval.
    """

    name: str
    effect: RuleEffect
    match: Conditions
    exclusion: Conditions | None = None
    demand: ApprovalDemand | None = None

    @property
    def is_about_keys(self) -> bool:
        """Whether it says something only where there is a key."""
        return self.match.is_about_keys or (
            self.exclusion is not None and self.exclusion.is_about_keys
        )

    @property
    def is_timed(self) -> bool:
        """Whether it, or its exception, holds at some times only."""
        asked = (self.match, self.exclusion)
        return any(terms is not None and terms.window is not None for terms in asked)

    @property
    def is_about_callers(self) -> bool:
        """Whether it is about who asks, and names none of the HSM's own doings."""
        asked = [self.match.caller]
        if self.exclusion is not None:
            asked.append(self.exclusion.caller)
        return not all(terms.is_open for terms in asked) and not any(
            terms.names_the_hsm for terms in asked
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """
    A policy that was read and checked.

    Attributes:
        groups: Operations by name of the group; what they meant stands in the rest.
        grants: Operations by role.
        revoked_uses: What may be done with revoked versions.
        rules: In order of their names.
        approver_keys: Public keys of people, as written, by what
            `hsm_core.identities.identity` makes of the principal.
        people: Whom client certificates name, by name of the person.
        token_identities: Identity rules about tokens.
        distinct_certificates: Whether a client certificate is one person's.
        warnings: What was probably not meant, one sentence each.
        text: What it was read from.
        policy_hash: SHA-256 of what it says, hex; order and comments make no other.
    """

    groups: Mapping[str, frozenset[str]]
    grants: Mapping[Role, frozenset[str]]
    revoked_uses: frozenset[str]
    rules: tuple[PolicyRule, ...]
    approver_keys: Mapping[str, tuple[str, ...]]
    people: tuple[KnownPerson, ...] = ()
    token_identities: tuple[TokenIdentity, ...] = ()
    distinct_certificates: bool = True
    warnings: tuple[str, ...] = ()
    text: str = ""
    policy_hash: str = field(init=False, default="")

    @property
    def asks_for_single_use(self) -> bool:
        """Whether a rule distinguishes tokens that were used from others."""
        asked = [rule.match for rule in self.rules]
        asked += [rule.exclusion for rule in self.rules if rule.exclusion is not None]
        return any(terms.caller.single_use is not None for terms in asked)

    @property
    def token_issuers(self) -> frozenset[str]:
        """Issuers of tokens that the identity rules are about."""
        return frozenset(rule.issuer for rule in self.token_identities)

    def __post_init__(self) -> None:
        said: list[Any] = [
            {role.value: sorted(kinds) for role, kinds in self.grants.items() if kinds},
            sorted(self.revoked_uses),
            [_stated(rule) for rule in sorted(self.rules, key=lambda rule: rule.name)],
            {name: sorted(keys) for name, keys in self.approver_keys.items()},
        ]
        if not self.distinct_certificates:
            said.append("shared certificates")
        if self.people:
            said.append([person.stated() for person in self.people])
        if self.token_identities:
            said.append(["tokens", *(rule.stated() for rule in self.token_identities)])
        text = json.dumps(said, sort_keys=True, default=_plain)
        digest = hashlib.sha256(text.encode()).hexdigest()
        object.__setattr__(self, "policy_hash", digest)


def _stated(rule: PolicyRule) -> list[Any]:
    demand = msgspec.to_builtins(rule.demand)
    return [rule.name, rule.effect, rule.match, rule.exclusion, demand]


def _plain(value: object) -> Any:
    if isinstance(value, frozenset):
        return sorted(value)
    if isinstance(value, TimeWindow):
        return value.stated()
    if isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network):
        return str(value)
    slots: tuple[str, ...] = getattr(type(value), "__slots__", ())
    return [
        [name, getattr(value, name)]
        for name in slots
        # It came later, and policies without it are to be what they were.
        if name != "single_use" or getattr(value, name) is not None
    ]


INTERNAL_OPERATIONS: Final = frozenset(
    {
        "AllowPurges",
        "CancelPurge",
        "CompleteDestruction",
        "PurgeVersion",
        "SchedulePurge",
    }
)
"""Internal operations, requested only by the HSM."""

_REQUESTED: Final = (*OPERATIONS, *LOCAL_OPERATIONS)
KNOWN_OPERATIONS: Final = INTERNAL_OPERATIONS | {o.__name__ for o in _REQUESTED}
"""Operations that a policy can name."""

BATCHES: Final = {
    name.removesuffix("Batch"): name
    for name in sorted(KNOWN_OPERATIONS)
    if name.endswith("Batch")
}
"""Batch operations by the operation of a single item."""


class Form(msgspec.Struct, frozen=True):
    """
    One operation that a request is decided as: itself, or a twin that yields the same.

    Attributes:
        requested: Name of the operation that is requested.
        kind: Name of the operation that it is decided as.
        usage: A twin exists on keys with this usage alone; None means on every key.
        needs_grant: Whether the caller must be granted *kind* too. Otherwise only rules
            that deny it or require approval for it count.
    """

    requested: str
    kind: str
    usage: KeyUsage | None = None
    needs_grant: bool = True

    def reached(self, sides: tuple[KeyFacts, ...]) -> tuple[KeyFacts, ...] | None:
        """Return the keys that this form is about; None if no key has it."""
        if self.usage is None:
            return sides
        return tuple(side for side in sides if self.usage in side.usages) or None


_EXPORTED: Final = (
    ("Sign", KeyUsage.SIGN),
    ("RawSign", KeyUsage.SIGN),
    ("Encrypt", KeyUsage.ENCRYPT),
    ("RawEncrypt", KeyUsage.ENCRYPT),
    ("Decrypt", KeyUsage.DECRYPT),
    ("DecryptPKCS1", KeyUsage.DECRYPT),
    ("RawDecrypt", KeyUsage.DECRYPT),
    ("Open", KeyUsage.DECRYPT),
    ("Decapsulate", KeyUsage.DECAPSULATE),
    ("ComputeMac", KeyUsage.MAC),
    ("DeriveKey", KeyUsage.DERIVE),
    ("ImportKey", KeyUsage.UNWRAP),
)

TWINS: Final = (
    *(Form(batch, single) for single, batch in BATCHES.items()),
    Form("RawSign", "Sign"),
    Form("RawVerify", "Verify"),
    Form("DecryptPKCS1", "Decrypt"),
    # With an IV of one's choice, the stream modes decrypt what they encrypt.
    *(
        Form(raw, kind)
        for raw in ("RawEncrypt", "RawDecrypt")
        for kind in ("Encrypt", "Decrypt")
    ),
    # The shared secret of a sealed message opens it, without its AAD.
    Form("Decapsulate", "Open", KeyUsage.DECRYPT),
    Form("RecoverStore", "RecoverKey"),
    # An exported key is unwrapped and used outside. Managing keys and using them are
    # duties of different roles, so export needs no grant of use.
    *(Form("ExportKey", use, usage, needs_grant=False) for use, usage in _EXPORTED),
)
"""
Operations that produce the result of another, whose rules also apply.

Decrypt and Decapsulate have no row for ImportKey: no key may both decrypt and unwrap.
"""

MAKING: Final = frozenset({"CreateKey", "DeriveKey", "ImportKey"})
"""Operations that create a key and state its facts."""

KEYED: Final = (
    INTERNAL_OPERATIONS
    | MAKING
    | {"ListKeys"}
    | {
        operation.__name__
        for operation in _REQUESTED
        if "key_id" in operation.__struct_fields__ or operation.other_keys
    }
) - {"ListApprovals", "ListAuditEvents", "RecoverKey"}
"""Operations to which key conditions can apply."""

REVOCABLE: Final = frozenset({"GetPublicKey", "Verify", "VerifyMac"})
"""The only operations that a policy can allow for revoked versions."""
