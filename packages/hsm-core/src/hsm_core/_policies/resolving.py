# SPDX-License-Identifier: MIT
"""From a policy file as it is written to the rules that it means."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping
from typing import Final, TypeVar

from hsm_core._policies.certificate_identities import (
    check_alternative_name,
    given,
    read_certificates,
)
from hsm_core._policies.policy_file import (
    ApprovalSection,
    Fact,
    MatchSection,
    Path,
    PolicyFile,
    RuleEffect,
    RuleSection,
    policy_fault,
)
from hsm_core._policies.rules import (
    DEFAULT_DENY,
    KNOWN_OPERATIONS,
    REVOCABLE,
    CallerTerms,
    Conditions,
    Network,
    PolicyRule,
    read_window,
)
from hsm_core.algorithms import (
    ALGORITHMS,
    Algorithm,
    Family,
    KeyUsage,
    parse_algorithm,
    spec,
)
from hsm_core.errors import UnknownAlgorithmError
from hsm_core.identities import identity
from hsm_core.model import ApprovalDemand
from hsm_core.protocols import KeyTerms, NameTerms, algorithm_facts

Groups = Mapping[str, frozenset[str]]
"""Operations by group name."""

_SELF: Final = "self"
T = TypeVar("T")
_FAMILIES: Final = {family.value.lower(): family for family in Family}


def read_groups(file: PolicyFile, known: Groups) -> Groups:
    """
    Return the groups of a file, beside those that it has from elsewhere.

    Raises:
        InvalidInputError: One holds what is no operation, or has a taken name.
    """
    found = dict(known)
    for name, operations in file.groups.items():
        path = ("groups", name)
        if name in known:
            raise policy_fault("Duplicate group name.", path)
        found[name] = read_operations(operations, {}, path)
    return found


def read_operations(names: Iterable[str], groups: Groups, path: Path) -> frozenset[str]:
    """
    Return the operations that names of operations and groups stand for.

    Raises:
        InvalidInputError: A name is neither.
    """
    found: set[str] = set()
    for number, name in enumerate(names):
        if name in KNOWN_OPERATIONS:
            found.add(name)
        elif name in groups:
            found |= groups[name]
        else:
            raise policy_fault(
                f"Unknown operation or operation group {name!r}.",
                (*path, number),
            )
    return frozenset(found)


def read_revoked_uses(names: Iterable[str], path: Path) -> frozenset[str]:
    """
    Return what may be done with revoked versions.

    Raises:
        InvalidInputError: It is something that never may.
    """
    found = set()
    for number, name in enumerate(names):
        if name not in REVOCABLE:
            raise policy_fault(
                f"Only {', '.join(sorted(REVOCABLE))} can be allowed for revoked "
                "versions.",
                (*path, number),
            )
        found.add(name)
    return frozenset(found)


def read_rule(section: RuleSection, groups: Groups, path: Path) -> PolicyRule:
    """
    Return the rule that a section means.

    Raises:
        InvalidInputError: Something in it makes no sense.
    """
    if section.name.startswith("system") or section.name == DEFAULT_DENY:
        raise policy_fault("This name is reserved for the HSM.", (*path, "name"))
    asks = section.effect is RuleEffect.REQUIRE_APPROVAL
    if section.approval is not None and not asks:
        raise policy_fault(
            "approval is allowed only in a rule with effect require-approval.",
            (*path, "approval"),
        )
    demand = None
    if asks:
        asked = section.approval or ApprovalSection()
        demand = _read_demand(section.name, asked, (*path, "approval"))
    exclusion = None
    if section.except_ is not None:
        exclusion = _read_conditions(section.except_, groups, (*path, "except"))
        if exclusion.is_open:
            raise policy_fault(
                "except must have at least one condition: an empty one excepts "
                "everything.",
                (*path, "except"),
            )
    return PolicyRule(
        name=section.name,
        effect=section.effect,
        match=_read_conditions(section.match, groups, (*path, "match")),
        exclusion=exclusion,
        demand=demand,
    )


def _read_demand(name: str, section: ApprovalSection, path: Path) -> ApprovalDemand:
    distinct = section.distinct_roles or ()
    if len(set(distinct)) != len(distinct):
        raise policy_fault("Duplicate role.", (*path, "distinct_roles"))
    quorum = section.quorum if section.quorum is not None else max(len(distinct), 1)
    if quorum < len(distinct):
        raise policy_fault(
            f"quorum must be at least {len(distinct)}, the number of distinct_roles.",
            (*path, "quorum"),
        )
    return ApprovalDemand(
        rule=name,
        quorum=quorum,
        roles=tuple(sorted(set(section.roles or ()))),
        distinct_roles=tuple(sorted(distinct)),
        seconds=section.ttl_seconds,
        uses=section.uses,
        signed=section.signed,
    )


def _read_conditions(section: MatchSection, groups: Groups, path: Path) -> Conditions:
    owners = None
    if section.owners is not None:
        owners = frozenset(identity(o) for o in section.owners if o != _SELF) or None
    return Conditions(
        operations=given(
            section,
            "operations",
            path,
            lambda names, at: read_operations(names, groups, at),
        ),
        caller=_read_caller(section, path),
        key=KeyTerms(
            algorithms=_read_algorithms(section, path),
            usages=given(section, "usages", path, _read_usages),
            tags=given(section, "tags", path, _as_set),
            owners=owners,
            names=given(section, "key_names", path, _read_names),
        ),
        own=section.owners is not None and _SELF in section.owners,
        window=given(section, "time", path, read_window),
    )


def _read_caller(section: MatchSection, path: Path) -> CallerTerms:
    return CallerTerms(
        principals=given(section, "principals", path, _read_principals),
        roles=given(section, "roles", path, _as_set),
        certificates=given(section, "certificates", path, read_certificates),
        certificate_subjects=given(
            section, "certificate_subjects", path, _read_subjects
        ),
        certificate_names=given(
            section, "certificate_names", path, _read_alternative_names
        ),
        networks=given(section, "networks", path, _read_networks),
        single_use=section.single_use,
    )


def _as_set(values: Iterable[T], path: Path) -> frozenset[T]:
    return frozenset(values)


def _read_networks(texts: tuple[str, ...], path: Path) -> tuple[Network, ...]:
    found = {_read_network(text, (*path, n)) for n, text in enumerate(texts)}
    return tuple(sorted(found, key=str))


def _read_algorithms(section: MatchSection, path: Path) -> frozenset[str] | None:
    """Return the algorithms that all conditions about them leave; None for any."""
    left: set[Algorithm] | None = None
    for wanted in _wanted_algorithms(section, path):
        left = wanted if left is None else left & wanted
    return None if left is None else frozenset(a.value for a in left)


def _wanted_algorithms(section: MatchSection, path: Path) -> list[set[Algorithm]]:
    found: list[set[Algorithm]] = []
    if section.algorithms is not None:
        at = (*path, "algorithms")
        named = {_read_algorithm(n, (*at, i)) for i, n in enumerate(section.algorithms)}
        found.append({a for a in ALGORITHMS if not named.isdisjoint(_parts(a))})
    if section.families is not None:
        at = (*path, "families")
        families = {_read_family(n, (*at, i)) for i, n in enumerate(section.families)}
        found.append(
            {
                a
                for a in ALGORITHMS
                if any(spec(p).family in families for p in _parts(a))
            }
        )
    if section.categories is not None:
        found.append({a for a in ALGORITHMS if spec(a).category in section.categories})
    if section.facts is not None:
        facts: frozenset[Fact] = frozenset(section.facts)
        found.append(
            {a for a in ALGORITHMS if not facts.isdisjoint(algorithm_facts(a))}
        )
    return found


def _parts(algorithm: Algorithm) -> set[Algorithm]:
    return {algorithm, *spec(algorithm).components}


def _read_algorithm(name: str, path: Path) -> Algorithm:
    try:
        return parse_algorithm(name)
    except UnknownAlgorithmError as error:
        raise policy_fault(str(error), path) from None


def _read_family(name: str, path: Path) -> Family:
    try:
        return _FAMILIES[name.lower()]
    except KeyError:
        raise policy_fault(
            f"Unknown family {name!r}. Use one of {', '.join(Family)}.", path
        ) from None


def _read_usages(names: tuple[str, ...], path: Path) -> frozenset[str]:
    for number, name in enumerate(names):
        if name not in set(KeyUsage):
            raise policy_fault(
                f"Unknown usage {name!r}. Use one of {', '.join(KeyUsage)}.",
                (*path, number),
            )
    return frozenset(names)


def _read_names(names: tuple[str, ...], path: Path) -> NameTerms:
    exact, prefixes = set(), set()
    for number, name in enumerate(names):
        if "*" in name[:-1]:
            raise policy_fault(
                "The wildcard * is allowed only at the end.", (*path, number)
            )
        if name.endswith("*"):
            prefixes.add(name[:-1])
        else:
            exact.add(name)
    return NameTerms(frozenset(exact), tuple(sorted(prefixes)))


def _read_principals(names: tuple[str, ...], path: Path) -> NameTerms:
    written = _read_names(names, path)
    for prefix in written.prefixes:
        if prefix != prefix.strip():
            raise policy_fault(
                f"The wildcard of {prefix!r} must not follow a space.", path
            )
    return NameTerms(
        frozenset(map(identity, written.exact)),
        tuple(sorted(map(identity, written.prefixes))),
    )


def _read_subjects(names: tuple[str, ...], path: Path) -> NameTerms:
    if "*" in names:
        # An empty subject, or no certificate, would match too.
        raise policy_fault("A lone * is not allowed for a certificate field.", path)
    return _read_names(names, path)


def _read_alternative_names(names: tuple[str, ...], path: Path) -> NameTerms:
    for number, name in enumerate(names):
        check_alternative_name(name, (*path, number))
    return _read_names(names, path)


def _read_network(text: str, path: Path) -> Network:
    try:
        network = ipaddress.ip_network(text)
    except ValueError as error:
        raise policy_fault(f"Not a valid network: {error}.", path) from None
    if isinstance(network, ipaddress.IPv6Network):
        first = network.network_address.ipv4_mapped
        if first is not None and network.prefixlen >= 96:
            return ipaddress.IPv4Network((first, network.prefixlen - 96))
    return network
