# SPDX-License-Identifier: MIT
"""A policy as it is enforced: names looked up, groups and algorithms written out."""

from __future__ import annotations

import hashlib
import ipaddress
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

import msgspec

from hsm_core._policies.known_people import KnownPerson
from hsm_core._policies.schema import RuleEffect
from hsm_core._policies.windows import TimeWindow
from hsm_core.identities import SYSTEM_PREFIX, identity
from hsm_core.model import ApprovalDemand, Caller, Role
from hsm_core.protocols import KeyTerms, NameTerms

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


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerTerms:
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
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
        return KeyTerms(
            algorithms=self.key.algorithms,
            usages=self.key.usages,
            tags=self.key.tags,
            owners=owners,
            names=self.key.names,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRule:
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
