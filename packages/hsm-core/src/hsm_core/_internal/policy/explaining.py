# SPDX-License-Identifier: MIT
"""Why a policy says what it says: each rule that could be meant, what is missing."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from hsm_core._internal.policy.clauses import applies_to_all, applies_to_any, clause_of
from hsm_core._internal.policy.engine import RuleEngine
from hsm_core._internal.policy.outcomes import DEFAULT_DENY, outcome_of_rule
from hsm_core._policies.rules import CallerTerms, Conditions, PolicyRule
from hsm_core._policies.schema import Effect
from hsm_core.model import ApprovalDemand, Caller, PolicyOutcome
from hsm_core.operations import PolicyExplanation, RuleExplanation
from hsm_core.protocols import KeyFacts

__all__ = ["explain"]


def explain(
    engine: RuleEngine,
    kind: str,
    caller: Caller,
    sides: tuple[KeyFacts, ...],
    at: int,
) -> PolicyExplanation:
    """
    Say what would be decided, by which rule, and what would be needed.

    Args:
        engine: The policy.

        kind: Name of the operation.

        caller: Who would ask.

        sides: Facts of the keys that it would be about.

        at: When, in microseconds since 1970.
    """
    decision = engine.judge(kind, caller, sides, at)
    outcome = outcome_of_rule(decision.rule)
    return PolicyExplanation(
        outcome=outcome,
        rule=decision.rule,
        policy=engine.policy_hash,
        demands=decision.approvals,
        needed=tuple(_needed(engine, kind, outcome, decision.rule, decision.approvals)),
        rules=tuple(
            _explained(rule, kind, caller, sides, at)
            for rule in engine.policy.rules
            if rule.match.operations is None or kind in rule.match.operations
        ),
    )


def _needed(
    engine: RuleEngine,
    kind: str,
    outcome: PolicyOutcome,
    rule: str,
    demands: tuple[ApprovalDemand, ...],
) -> Iterator[str]:
    if outcome is PolicyOutcome.APPROVAL:
        yield from map(_demand_in_words, demands)
    elif rule == DEFAULT_DENY:
        granted = [
            r.value for r, kinds in engine.policy.grants.items() if kind in kinds
        ]
        if granted:
            yield f"One of these roles: {', '.join(granted)}."
        else:
            yield "No role is granted this; a rule would have to allow it."
    elif outcome is PolicyOutcome.DENY:
        yield f"The rule {rule} denies it; nothing outweighs that."


def _demand_in_words(demand: ApprovalDemand) -> str:
    people = "another person" if demand.quorum == 1 else f"{demand.quorum} other people"
    text = f"The consent of {people}"
    if demand.roles:
        text += f" with a role of {', '.join(demand.roles)}"
    if demand.distinct_roles:
        text += f", among them one each as {' and '.join(demand.distinct_roles)}"
    if demand.signed:
        text += ", signed"
    text += f", within {demand.seconds} seconds"
    if demand.uses > 1:
        text += f", for up to {demand.uses} uses"
    return f"{text} ({demand.rule})."


def _explained(
    rule: PolicyRule, kind: str, caller: Caller, sides: tuple[KeyFacts, ...], at: int
) -> RuleExplanation:
    clause = clause_of(rule, kind, caller, at)
    applies = applies_to_all if rule.effect is Effect.ALLOW else applies_to_any
    holds = clause is not None and applies(rule, clause, sides)
    return RuleExplanation(
        name=rule.name,
        effect=rule.effect.value,
        holds=holds,
        missing=() if holds else tuple(_missing(rule, caller, sides, at)),
    )


def _missing(
    rule: PolicyRule, caller: Caller, sides: tuple[KeyFacts, ...], at: int
) -> Iterator[str]:
    """Give the conditions that keep a rule from holding, by name."""
    match = rule.match
    yield from _missing_of_caller(match.caller, caller)
    if match.window is not None and not match.window.holds(at):
        yield "time"
    if rule.is_about_keys and not sides:
        yield "key"
        return
    found = dict.fromkeys(
        n for side in sides for n in _missing_of_key(match, caller, side)
    )
    yield from found
    if not found:
        yield "except"


def _missing_of_caller(terms: CallerTerms, caller: Caller) -> Iterator[str]:
    for name in (f.name for f in dataclasses.fields(CallerTerms)):
        value = getattr(terms, name)
        alone = CallerTerms(**{name: value})
        if value is not None and not alone.fulfilled_by(caller):
            yield name


def _missing_of_key(match: Conditions, caller: Caller, key: KeyFacts) -> Iterator[str]:
    terms = match.key_terms(caller)
    for name in ("algorithms", "usages", "tags", "owners", "names"):
        value = getattr(terms, name)
        alone = type(terms)(**{name: value})
        if value is not None and not alone.fulfilled_by(key):
            yield "key_names" if name == "names" else name
