# SPDX-License-Identifier: MIT
"""
Rules that a label change would remove from a key, for any caller and time.

The change itself may come by day, from the office, by somebody whom no rule concerns;
what it makes possible may come by night, from elsewhere, by somebody else. So of each
rule only what it says of the key is looked at, and what it could say of everybody.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import msgspec

from hsm_core._policies.operations import INTERNAL_OPERATIONS
from hsm_core._policies.rules import Conditions, Policy, PolicyRule
from hsm_core._policies.schema import RuleEffect
from hsm_core.identities import identity
from hsm_core.model import ApprovalDemand, Caller
from hsm_core.operations import OPERATIONS
from hsm_core.protocols import KeyClause, KeyFacts

_SOMEBODY: Final = Caller(principal="", roles=frozenset())
"""Stands for every owner not named by a rule."""

_CONCERNED: Final = INTERNAL_OPERATIONS | {
    kind.__name__
    for kind in OPERATIONS
    if kind.other_keys
    or any(f.name == "key_id" and f.required for f in msgspec.structs.fields(kind))
}
"""Operations on an existing key."""


def freed(
    policy: Policy, before: KeyFacts, after: KeyFacts
) -> tuple[ApprovalDemand, ...]:
    """Return what these rules demand; see `freeing`."""
    rules = freeing(policy, before, after)
    return tuple(rule.demand for rule in rules if rule.demand is not None)


def freeing(
    policy: Policy, before: KeyFacts, after: KeyFacts
) -> tuple[PolicyRule, ...]:
    """
    Return the rules that hold for *before* and would not for *after*.

    Rules that deny are among them; rules that allow are not.
    """
    owners = dict.fromkeys((before.owner, after.owner))
    people = [Caller(principal=o, roles=frozenset()) for o in owners]
    return tuple(
        rule
        for rule in policy.rules
        if rule.effect is not RuleEffect.ALLOW
        and rule.is_about_keys
        and not _CONCERNED.isdisjoint(rule.match.operations or _CONCERNED)
        and any(
            clause.covers(before) and not clause.covers(after)
            for clause in _clauses(rule, [*people, _SOMEBODY])
        )
    )


def _clauses(rule: PolicyRule, people: list[Caller]) -> Iterator[KeyClause]:
    """Give every clause that a rule may have: for each person, and excepting or not."""
    exclusion = rule.exclusion
    for who in people:
        if not _may_concern(rule.match, who):
            continue
        terms = rule.match.key_terms(who)
        if exclusion is None or not _always_concerns(exclusion, rule.match):
            yield KeyClause(terms)
        if exclusion is not None and exclusion.is_about_keys:
            yield KeyClause(terms, exclusion.key_terms(who))


def _may_concern(conditions: Conditions, who: Caller) -> bool:
    named = conditions.caller.principals
    return who is _SOMEBODY or named is None or named.include(identity(who.principal))


def _always_concerns(exclusion: Conditions, match: Conditions) -> bool:
    """Return whether an exception depends on nothing but the key."""
    kinds = exclusion.operations
    return (
        exclusion.caller.is_open
        and exclusion.window is None
        and (kinds is None or kinds >= (match.operations or _CONCERNED))
    )
