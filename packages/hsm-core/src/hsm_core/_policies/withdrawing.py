# SPDX-License-Identifier: MIT
"""
Trust that a refused policy file takes away nevertheless.

A file that is not valid as a whole grants nothing, but what it no longer grants must
not stay granted. So the policy in force is cut down to what the legible parts of the
file still say: each rule, identity and key of an approver is read by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeVar

import msgspec

from hsm_core._policies.operations import KNOWN_OPERATIONS
from hsm_core._policies.resolving import Groups, read_rule
from hsm_core._policies.rules import Policy, PolicyRule
from hsm_core._policies.schema import (
    Effect,
    IdentitySection,
    MatchSection,
    PolicyFile,
    RuleSection,
)
from hsm_core._policies.texts import read_tree
from hsm_core.errors import InvalidInputError
from hsm_core.model import Role

T = TypeVar("T")

_MOST_RULES: Final = 1000


def text_without_withdrawn(former: Policy, base: Policy | None, text: str) -> str:
    """
    Return the text of *former* without what a faulty *text* takes away.

    Grants, ``allow`` rules, uses of revoked versions, approvers' keys and identities
    stay only if *text* has them too; of its rules that deny or require approval those
    that can be read are added. A section that is no mapping or list where there must be
    one says nothing.

    Args:
        former: The policy in force.

        base: The built-in policy that *text* extends; None if none.

        text: A policy file that is not valid as a whole.

    Raises:
        InvalidInputError: It is no mapping of version 1, so it says nothing.
    """
    tree, _ = read_tree(text)
    if not isinstance(tree, dict) or tree.get("version") != 1:
        raise InvalidInputError("This is no policy of version 1.")
    file = msgspec.convert(read_tree(former.text)[0], PolicyFile)
    groups = _groups(tree, base)
    restricted = msgspec.structs.replace(
        file,
        grants=_grants(former, tree, base, groups),
        revoked_uses=_revoked_uses(former, tree, base),
        rules=tuple(_rules(former, file, tree, groups)),
        approvers=_approvers(file, tree),
        identities=tuple(_identities(file, tree)),
        distinct_certificates=file.distinct_certificates
        or tree.get("distinct_certificates", True) is True,
    )
    return msgspec.json.encode(restricted).decode()


def _section(tree: Mapping[str, Any], name: str, kind: type[T]) -> T | None:
    """Return a section of a file, an empty one if it is absent, None if it is odd."""
    found = tree.get(name, kind())
    return found if isinstance(found, kind) else None


def _operations(names: object, groups: Groups) -> frozenset[str]:
    found: set[str] = set()
    for name in names if isinstance(names, list) else ():
        if isinstance(name, str):
            found |= {name} & KNOWN_OPERATIONS | groups.get(name, frozenset())
    return frozenset(found)


def _groups(tree: Mapping[str, Any], base: Policy | None) -> Groups:
    found = dict(base.groups) if base else {}
    for name, names in (_section(tree, "groups", dict) or {}).items():
        found[name] = _operations(names, {})
    return found


def _grants(
    former: Policy, tree: Mapping[str, Any], base: Policy | None, groups: Groups
) -> dict[Role, tuple[str, ...]]:
    said = _section(tree, "grants", dict)
    kept = {}
    for role, operations in former.grants.items():
        still = base.grants[role] if base else frozenset[str]()
        if said is None:
            still = operations
        elif role.value in said:
            still = _operations(said[role.value], groups)
        kept[role] = tuple(sorted(operations & still))
    return kept


def _revoked_uses(
    former: Policy, tree: Mapping[str, Any], base: Policy | None
) -> tuple[str, ...]:
    said = tree.get("revoked_uses")
    if said is None:
        usual = base.revoked_uses if base else frozenset[str]()
        return tuple(sorted(former.revoked_uses & usual))
    is_odd = not isinstance(said, list)
    return tuple(sorted(u for u in former.revoked_uses if is_odd or u in said))


def _rules(
    former: Policy, file: PolicyFile, tree: Mapping[str, Any], groups: Groups
) -> Iterator[RuleSection]:
    said = _section(tree, "rules", list)
    legible = list(_legible_rules(said or (), groups))
    meant = {rule.name: rule for rule in former.rules}
    still = [rule for rule, _ in legible]
    taken = set(meant)
    count = 0
    for section in file.rules:
        is_kept = section.effect is not Effect.ALLOW or said is None
        if is_kept or meant[section.name] in still:
            count += 1
            yield section
    for rule, section in legible:
        is_new = rule.effect is not Effect.ALLOW and rule not in meant.values()
        if is_new and count < _MOST_RULES:
            name = _free_name(rule.name, taken)
            taken.add(name)
            count += 1
            yield _written_out(section, rule, name)


def _legible_rules(
    sections: object, groups: Groups
) -> Iterator[tuple[PolicyRule, RuleSection]]:
    for section in sections if isinstance(sections, list) else ():
        try:
            found = msgspec.convert(section, RuleSection)
            yield read_rule(found, groups, ()), found
        except (msgspec.ValidationError, InvalidInputError):
            continue


def _free_name(name: str, taken: set[str]) -> str:
    number = 1
    free = name
    while free in taken:
        number += 1
        free = f"{name[:58]}-{number}"
    return free


def _written_out(section: RuleSection, rule: PolicyRule, name: str) -> RuleSection:
    """Return a rule with its groups written out, under a name that is free."""

    def match(part: MatchSection, operations: frozenset[str] | None) -> MatchSection:
        named = tuple(sorted(operations)) if operations is not None else None
        return msgspec.structs.replace(part, operations=named)

    except_ = section.except_
    if except_ is not None and rule.exclusion is not None:
        except_ = match(except_, rule.exclusion.operations)
    return msgspec.structs.replace(
        section,
        name=name,
        match=match(section.match, rule.match.operations),
        except_=except_,
    )


def _approvers(file: PolicyFile, tree: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    said = _section(tree, "approvers", dict)
    if said is None:
        return file.approvers
    kept = {}
    for principal, keys in file.approvers.items():
        still = said.get(principal)
        of_them = tuple(k for k in keys if isinstance(still, list) and k in still)
        if of_them:
            kept[principal] = of_them
    return kept


def _identities(file: PolicyFile, tree: Mapping[str, Any]) -> Iterator[IdentitySection]:
    """Give people with the same certificates, and roles that they have in both."""
    said = _section(tree, "identities", list)
    if said is None:
        yield from file.identities
        return
    still = {}
    for section in said:
        try:
            found = msgspec.convert(section, IdentitySection)
        except msgspec.ValidationError:
            continue
        still[msgspec.structs.replace(found, roles=(Role.SERVICE,))] = found.roles
    for person in file.identities:
        roles = still.get(msgspec.structs.replace(person, roles=(Role.SERVICE,)), ())
        kept = tuple(role for role in person.roles if role in roles)
        if kept:
            yield msgspec.structs.replace(person, roles=kept)
