# SPDX-License-Identifier: MIT
"""Review of a policy, and withdrawal of what a refused file no longer grants."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import msgspec

from hsm_core._policies.certificate_identities import KnownPerson, plain_fingerprint
from hsm_core._policies.policy_file import (
    IdentitySection,
    PolicyFile,
    RuleEffect,
    RuleSection,
)
from hsm_core._policies.resolving import Groups, read_rule
from hsm_core._policies.rules import (
    BATCHES,
    KEYED,
    KNOWN_OPERATIONS,
    MAKING,
    Conditions,
    Policy,
    PolicyRule,
)
from hsm_core._policies.token_identities import TokenIdentity, read_token_identity
from hsm_core.algorithms import Algorithm, spec
from hsm_core.approver_keys import read_approver_key
from hsm_core.errors import InvalidInputError, UnavailableError
from hsm_core.identities import identity
from hsm_core.model import Role
from hsm_core.operations.base import KeyName, Tag
from hsm_core.protocols import KeyTerms, NameTerms

_PURGE = "PurgeVersion"
_ALIKE = (("DestroyKey", "RevokeKey"), ("RotateKey", "SetRotation"))
"""Operations that lead to the same in the end, and are no twins."""


def review(
    grants: Mapping[Role, frozenset[str]],
    rules: tuple[PolicyRule, ...],
    approver_keys: Mapping[str, tuple[str, ...]],
) -> tuple[str, ...]:
    """Return warnings about a policy, one sentence each."""
    found: list[str] = []
    for rule in rules:
        found += [f"Rule {rule.name} {reason}" for reason in _doubts(rule)]
        if rule.demand is not None and rule.demand.signed:
            signers = len(approver_keys)
            if signers < rule.demand.quorum:
                found.append(
                    f"Rule {rule.name} requires {rule.demand.quorum} signatures, but "
                    f"approvers lists {signers} people with a key."
                )
    found += _useless_grants(grants, rules)
    if not any(grants.values()) and not any(
        r.effect is RuleEffect.ALLOW for r in rules
    ):
        found.append("The policy grants nothing.")
    asked = [r for r in rules if r.effect is RuleEffect.REQUIRE_APPROVAL]
    if not any(_PURGE in (r.match.operations or {_PURGE}) for r in asked):
        found.append(
            "No rule requires approval before key material is purged; the built-in "
            "rule retention-purge applies."
        )
    return tuple(found)


def _doubts(rule: PolicyRule) -> Iterator[str]:
    match, exclusion = rule.match, rule.exclusion
    if match.key.algorithms == frozenset():
        yield "never matches: no algorithm meets all its conditions."
    elif not _usable(match):
        yield "never matches: its algorithms support none of its usages."
    if rule.is_about_keys and match.operations and match.operations.isdisjoint(KEYED):
        yield "never matches: it has key conditions, but its operations have no key."
    if match.operations == frozenset():
        yield "never matches: its groups of operations are empty."
    if exclusion is not None and _includes(exclusion, match):
        yield "never matches: its exception covers everything that it matches."
    if (
        rule.effect is RuleEffect.DENY
        and match.is_open
        and (exclusion is None or exclusion.caller.is_open)
        and not rule.is_about_keys
    ):
        yield (
            "may deny every operation to every caller, including changes of this "
            "policy."
        )
    for terms in (match, exclusion):
        if terms is not None:
            yield from _impossible(terms.key)
    if rule.effect is not RuleEffect.ALLOW and match.operations:
        yield from _batches_alone(match.operations)
        if match.operations <= MAKING and _is_about_labels(match):
            yield (
                "matches labels of new keys only; UpdateKey can set the same labels "
                "later."
            )


def _impossible(terms: KeyTerms) -> Iterator[str]:
    """Tell of labels that no key can have."""
    for tag in sorted(terms.tags or ()):
        if not _can_be(tag, Tag):
            yield f"has the tag {tag!r}, which no key can have. Tags have no wildcard."
    for owner in sorted(terms.owners or ()):
        if owner.endswith("*"):
            yield f"has the owner {owner!r}. Owners have no wildcard."
    names = terms.names or NameTerms()
    for name in (*sorted(names.exact), *filter(None, names.prefixes)):
        if not _can_be(name, KeyName):
            yield (
                f"has the key name {name!r}, which no key can have. Names are in lower "
                "case, and * is their only wildcard."
            )


def _can_be(text: str, kind: Any) -> bool:
    try:
        msgspec.convert(text, kind)
    except msgspec.ValidationError:
        return False
    return True


def review_names(
    sections: Iterable[RuleSection], rules: Mapping[str, PolicyRule]
) -> Iterator[str]:
    """
    Warn of rules that name one of two operations that lead to the same.

    A rule that has one of them by a group alone is about the group.
    """
    for section in sections:
        named = section.match.operations or ()
        reached = rules[section.name].match.operations or frozenset()
        for pair in _ALIKE if section.effect is not RuleEffect.ALLOW else ():
            for one, other in (pair, reversed(pair)):
                if one in named and other not in reached:
                    yield (
                        f"Rule {section.name} matches {one} but not {other}, which has "
                        "the same effect."
                    )


def _is_about_labels(match: Conditions) -> bool:
    labels = (match.key.tags, match.key.owners, match.key.names)
    return match.own or any(terms is not None for terms in labels)


def _batches_alone(operations: frozenset[str]) -> Iterator[str]:
    """Tell of what a rule about batches misses: the same, one by one."""
    for single, batch in BATCHES.items():
        if batch in operations and single not in operations:
            yield f"matches {batch} but not {single}, which does the same for one item."


def _useless_grants(
    grants: Mapping[Role, frozenset[str]], rules: tuple[PolicyRule, ...]
) -> Iterator[str]:
    """Tell of batches that are granted to no effect, for their items are not."""
    allowing = [rule for rule in rules if rule.effect is RuleEffect.ALLOW]
    for single, batch in BATCHES.items():
        if any(rule.match.names(single) for rule in allowing):
            continue
        lacking = f"{batch} but not {single}, which each item requires."
        for role, kinds in grants.items():
            if batch in kinds and single not in kinds:
                yield f"{role.value} is granted {lacking}"
        if not any(single in kinds for kinds in grants.values()):
            for rule in allowing:
                if rule.match.names(batch):
                    yield f"Rule {rule.name} allows {lacking}"


def _usable(match: Conditions) -> bool:
    algorithms, usages = match.key.algorithms, match.key.usages
    if algorithms is None or usages is None:
        return True
    return any(not usages.isdisjoint(spec(Algorithm(a)).usages) for a in algorithms)


def _includes(wider: Conditions, narrower: Conditions) -> bool:
    """Return whether the one surely holds wherever the other does."""
    if wider.window not in (None, narrower.window):
        return False
    if wider.caller.networks not in (None, narrower.caller.networks):
        return False
    if wider.caller.single_use not in (None, narrower.caller.single_use):
        return False
    if wider.own and not narrower.own:
        return False
    pairs = (
        (wider.operations, narrower.operations),
        (wider.caller.roles, narrower.caller.roles),
        (wider.caller.certificates, narrower.caller.certificates),
        (wider.key.algorithms, narrower.key.algorithms),
        (wider.key.usages, narrower.key.usages),
        (wider.key.tags, narrower.key.tags),
    )
    same = (
        (wider.caller.principals, narrower.caller.principals),
        (wider.caller.certificate_subjects, narrower.caller.certificate_subjects),
        (wider.caller.certificate_names, narrower.caller.certificate_names),
        (wider.key.names, narrower.key.names),
        (wider.key.owners, narrower.key.owners),
    )
    return all(a is None or (b is not None and a >= b) for a, b in pairs) and all(
        a is None or a == b for a, b in same
    )


T = TypeVar("T")


def cut_down(former: Policy, base: Policy | None, tree: Mapping[str, Any]) -> Policy:
    """
    Return *former* without what a faulty file takes away.

    Grants, ``allow`` rules, uses of revoked versions, approvers' keys and identities
    stay only if the file has them too; of its rules that deny or require approval those
    that can be read are added. Cut by the same file again, it stays the same.

    Args:
        former: The policy in force.

        base: The built-in policy that the file extends, one without any grant if none;
            None if nobody can tell which.

        tree: A policy file of version 1 that is not valid as a whole.
    """
    groups = _groups(former, tree, base)
    grants = _grants(former, tree, base, groups)
    rules = _rules(former, tree, base, groups)
    approver_keys = _approver_keys(former, tree)
    return replace(
        former,
        grants=grants,
        revoked_uses=_revoked_uses(former, tree, base),
        rules=rules,
        approver_keys=approver_keys,
        people=tuple(_people(former, tree)),
        token_identities=tuple(_token_identities(former, tree)),
        distinct_certificates=former.distinct_certificates
        or tree.get("distinct_certificates", True) is True,
        warnings=review(grants, rules, approver_keys),
    )


def readable(tree: Mapping[str, Any], name: str, kind: type[T]) -> T | None:
    """
    Return a section of a file, an empty one if it is absent.

    Returns:
        None if it can't be read, or is absent while an unknown name may stand for it.
    """
    if name not in tree:
        known = {field.encode_name for field in msgspec.structs.fields(PolicyFile)}
        return kind() if tree.keys() <= known else None
    found = tree[name]
    return found if isinstance(found, kind) else None


def _operations(names: list[object], groups: Groups) -> frozenset[str]:
    found: set[str] = set()
    for name in names:
        if isinstance(name, str):
            found |= {name} & KNOWN_OPERATIONS | groups.get(name, frozenset())
    return frozenset(found)


def _groups(former: Policy, tree: Mapping[str, Any], base: Policy | None) -> Groups:
    said: dict[str, object] | None = readable(tree, "groups", dict)
    if base is None or said is None:
        known = {**former.groups, **(base.groups if base else {})}
    else:
        # A group that can't be read means what it meant.
        known = {n: ops for n, ops in former.groups.items() if n in said} | dict(
            base.groups
        )
    return known | {
        name: _operations(names, {})
        for name, names in (said or {}).items()
        if isinstance(names, list)
    }


def _grants(
    former: Policy, tree: Mapping[str, Any], base: Policy | None, groups: Groups
) -> dict[Role, frozenset[str]]:
    said: dict[str, object] | None = readable(tree, "grants", dict)
    if said is None:
        return dict(former.grants)
    is_misspelt = not said.keys() <= {role.value for role in Role}
    kept = {}
    for role, operations in former.grants.items():
        named = said.get(role.value)
        if isinstance(named, list):
            operations &= _operations(named, groups)
        elif role.value not in said and base is not None and not is_misspelt:
            operations &= base.grants.get(role, frozenset())
        kept[role] = operations
    return kept


def _revoked_uses(
    former: Policy, tree: Mapping[str, Any], base: Policy | None
) -> frozenset[str]:
    said: list[object] | None = readable(tree, "revoked_uses", list)
    if said is None:
        return former.revoked_uses
    if "revoked_uses" in tree:
        return former.revoked_uses & _operations(said, {})
    return (
        former.revoked_uses
        if base is None
        else former.revoked_uses & (base.revoked_uses)
    )


def _rules(
    former: Policy, tree: Mapping[str, Any], base: Policy | None, groups: Groups
) -> tuple[PolicyRule, ...]:
    said: list[object] | None = readable(tree, "rules", list)
    legible = [*(base.rules if base else ()), *_legible_rules(said or [], groups)]
    meant = set(map(_nameless, legible))
    kept = {
        _nameless(rule): rule
        for rule in former.rules
        if rule.effect is not RuleEffect.ALLOW
        or said is None
        or _nameless(rule) in meant
    }
    for rule in legible:
        if rule.effect is not RuleEffect.ALLOW:
            kept.setdefault(_nameless(rule), rule)
    return tuple(sorted(kept.values(), key=lambda rule: rule.name))


def _nameless(rule: PolicyRule) -> PolicyRule:
    """Return what a rule says, whatever its name."""
    demand = rule.demand
    if demand is not None:
        demand = msgspec.structs.replace(demand, rule="")
    return msgspec.structs.replace(rule, name="", demand=demand)


def _legible_rules(sections: list[object], groups: Groups) -> Iterator[PolicyRule]:
    for each in sections:
        try:
            rule = read_rule(msgspec.convert(each, RuleSection), groups, ())
        except (msgspec.ValidationError, InvalidInputError, UnavailableError):
            continue
        conditions = (rule.match, rule.exclusion)
        if all(c is None or c.operations != frozenset() for c in conditions):
            yield rule


def _approver_keys(
    former: Policy, tree: Mapping[str, Any]
) -> Mapping[str, tuple[str, ...]]:
    said: dict[str, object] | None = readable(tree, "approvers", dict)
    if said is None:
        return former.approver_keys
    left: dict[str, set[bytes]] = {}
    for name, keys in said.items():
        if isinstance(keys, list):
            found = set(map(_key, keys))
            left[identity(name)] = left.get(identity(name), found) & found
    named = set(map(identity, said))
    kept = {}
    for person, keys in former.approver_keys.items():
        if person in left:
            keys = tuple(key for key in keys if _key(key) in left[person])
        if person in named and keys:
            kept[person] = keys
    return kept


def _key(text: object) -> bytes:
    """Return an approver's key as it is compared; empty if it is none."""
    try:
        return read_approver_key(text).blob if isinstance(text, str) else b""
    except InvalidInputError:
        return b""


def _people(former: Policy, tree: Mapping[str, Any]) -> Iterator[KnownPerson]:
    """Give people with what every section about them says."""
    said: list[object] | None = readable(tree, "identities", list)
    if said is None:
        yield from former.people
        return
    still: dict[str, list[dict[str, object]]] = {}
    for each in said:
        if (
            isinstance(each, dict)
            and isinstance(each.get("principal"), str)
            and not each.keys() & _OF_TOKENS
        ):
            still.setdefault(identity(each["principal"]), []).append(each)
    for person in former.people:
        sections = still.get(identity(person.principal), [])
        for each in sections:
            person = _person_cut(person, each)
        terms = (person.certificates, person.subjects, person.names)
        if sections and person.roles and frozenset() not in terms:
            yield person


_OF_TOKENS = frozenset(
    {"issuer", "audience", "claims", "principal_claim", "principal_prefix"}
)


def _token_identities(
    former: Policy, tree: Mapping[str, Any]
) -> Iterator[TokenIdentity]:
    """Yield the rules that an entry still states, with the roles that it states."""
    said: list[object] | None = readable(tree, "identities", list)
    if said is None:
        yield from former.token_identities
        return
    roles: dict[str, frozenset[str]] = {}
    for each in said:
        if not isinstance(each, dict):
            continue
        named = _both(None, each.get("roles"))
        try:
            section = msgspec.convert({**each, "roles": [*Role]}, IdentitySection)
            name = read_token_identity(section, ()).name
        except (msgspec.ValidationError, InvalidInputError):
            continue  # It states no other tokens that can be told.
        given = frozenset(Role) if named is None else named
        roles[name] = roles.get(name, frozenset()) | given
    for rule in former.token_identities:
        kept = rule.roles & roles.get(rule.name, frozenset())
        if kept:
            yield msgspec.structs.replace(rule, roles=frozenset(map(Role, kept)))


def _person_cut(person: KnownPerson, said: Mapping[str, object]) -> KnownPerson:
    roles = _both(frozenset(person.roles), said.get("roles"))
    return msgspec.structs.replace(
        person,
        roles=frozenset(map(Role, roles or ())),
        certificates=_both(
            person.certificates, said.get("certificates"), plain_fingerprint
        ),
        subjects=_both(person.subjects, said.get("certificate_subjects")),
        names=_both(person.names, said.get("certificate_names")),
    )


def _both(
    former: frozenset[str] | None, said: object, plain: Callable[[str], str] = str
) -> frozenset[str] | None:
    """Return the values that both have; None where none is asked for by either."""
    if not isinstance(said, list):
        return former
    named = frozenset(plain(value) for value in said if isinstance(value, str))
    return named if former is None else former & named
