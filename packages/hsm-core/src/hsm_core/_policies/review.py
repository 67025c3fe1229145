# SPDX-License-Identifier: MIT
"""Policy review: warnings about probable mistakes in a valid policy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from hsm_core._policies.operations import BATCHES, KEYED, MAKING
from hsm_core._policies.rules import Conditions, PolicyRule
from hsm_core._policies.schema import RuleEffect, RuleSection
from hsm_core.algorithms import Algorithm, spec
from hsm_core.model import Role

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
    if rule.effect is not RuleEffect.ALLOW and match.operations:
        yield from _batches_alone(match.operations)
        if match.operations <= MAKING and _is_about_labels(match):
            yield (
                "matches labels of new keys only; UpdateKey can set the same labels "
                "later."
            )


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
                        f"Rule {section.name} is about {one} and not about {other}, "
                        "which leads to the same."
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
        lacking = f"{batch} but not {single}, which decides each item."
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
