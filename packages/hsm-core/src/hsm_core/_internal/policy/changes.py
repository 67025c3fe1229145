# SPDX-License-Identifier: MIT
"""Policy decisions about changes of key metadata."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, TypeAlias

import msgspec

from hsm_core._internal.policy.facts import facts_after, joined
from hsm_core._policies.policy_file import RuleEffect
from hsm_core._policies.rules import INTERNAL_OPERATIONS, Conditions, Policy, PolicyRule
from hsm_core.identities import identity
from hsm_core.model import ApprovalDemand, Caller
from hsm_core.operations import OPERATIONS, Effect, Operation, UpdateKey
from hsm_core.protocols import Decision, KeyClause, KeyFacts

UPDATE_GIVES: Final = "update-gives:"
"""Prefix of an operation's name in place of a rule, for a change that grants rights."""

Decide: TypeAlias = Callable[[Operation[Any], KeyFacts], Decision]
"""Decides one caller's operation, as `RuleEngine` does."""

Freed: TypeAlias = Callable[[KeyFacts, KeyFacts], Sequence[ApprovalDemand]]
"""
Returns the rules that would no longer apply to others, as `RuleEngine.freed` does.
"""


def _nothing(before: KeyFacts, after: KeyFacts) -> Sequence[ApprovalDemand]:
    return ()


def decide_update(
    decide: Decide,
    operation: UpdateKey,
    key: KeyFacts,
    *,
    freed: Freed = _nothing,
) -> Decision:
    """
    Decide on an update by the facts that are and those that would be.

    - Both must allow the update itself, and all approvals that they ask for are asked.
    - What any operation on the key needs approvals for now, and would not any more, is
      asked for too: the rules by which two people must agree to a destruction hold for
      taking off the tag that they go by. *freed* says so of all whom a rule may
      concern, whenever it holds, and not of this caller at this time alone.
    - Nobody may do it to whom any operation on the key is denied now, and would be
      allowed after it.
    """
    after = facts_after(operation, key)
    first = decide(operation, key)
    if not first.allowed or after == key:
        return first
    then = decide(operation, after)
    if not then.allowed:
        return msgspec.structs.replace(then, may_describe=first.may_describe)
    spared = list(freed(key, after))
    for other in _others(key):
        now, would = decide(other, key), decide(other, after)
        if would.allowed and not now.allowed:
            return msgspec.structs.replace(
                first, allowed=False, rule=f"{UPDATE_GIVES}{type(other).__name__}"
            )
        if now.allowed:
            spared += (d for d in now.approvals if d not in would.approvals)
    return joined(
        [first, then, msgspec.structs.replace(first, approvals=tuple(spared))]
    )


_CHECKED: Final = tuple(
    operation
    for operation in OPERATIONS
    if operation is not UpdateKey and operation.effect is not Effect.RECOVERY
    if operation.other_keys or operation.names_key()
)


def _others(key: KeyFacts) -> list[Operation[Any]]:
    """Return every other operation that names a key, as far as rules look at it."""
    found = []
    for kind in _CHECKED:
        values: dict[str, Any] = dict.fromkeys(kind.required_fields(), b"")
        known = {"key_id": key.key_id, "algorithm": key.algorithm}
        values |= {name: known[name] for name in values.keys() & known.keys()}
        found.append(kind(**values))
    return found


_SOMEBODY: Final = Caller(principal="", roles=frozenset())
"""Stands for every owner not named by a rule."""

_ON_A_KEY: Final = INTERNAL_OPERATIONS | {
    kind.__name__ for kind in OPERATIONS if kind.other_keys or kind.names_key()
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
        and not _ON_A_KEY.isdisjoint(rule.match.operations or _ON_A_KEY)
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
        and (kinds is None or kinds >= (match.operations or _ON_A_KEY))
    )
