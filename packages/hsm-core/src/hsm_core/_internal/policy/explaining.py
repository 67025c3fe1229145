# SPDX-License-Identifier: MIT
"""Explanation of a policy decision: candidate rules and unmet conditions."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias

from hsm_core._internal.policy.changes import UPDATE_GIVES
from hsm_core._internal.policy.clauses import (
    applies_to_all,
    applies_to_any,
    clause_of,
)
from hsm_core._internal.policy.deciding import decide_as_asked
from hsm_core._internal.policy.engine import HeldRule, RuleEngine
from hsm_core._internal.policy.outcomes import DEFAULT_DENY, outcome_of_rule
from hsm_core._internal.policy.sides import StatedFacts, sides_as_asked
from hsm_core._policies.rules import CallerTerms, Conditions, PolicyRule
from hsm_core._policies.schema import RuleEffect
from hsm_core.model import ApprovalDemand, Caller, PolicyOutcome
from hsm_core.operations import PolicyExplanation, RuleExplanation
from hsm_core.protocols import Decision, KeyFacts

Sides: TypeAlias = tuple[KeyFacts, ...]
"""Key facts that a rule with a single lookup may match."""


def explain(
    engine: RuleEngine,
    asked: StatedFacts,
    caller: Caller,
    keys: Sequence[KeyFacts | None],
    at: int,
) -> PolicyExplanation:
    """
    Say what would be decided, by which rule, and what would be needed.

    It is the decision that the request itself would meet; see `decide_as_asked`, whose
    arguments these are.
    """
    kind = asked.kind
    decision = decide_as_asked(engine, asked, caller, keys, at)
    outcome = outcome_of_rule(decision.rule)
    sides = [sides_as_asked(asked, caller, key) for key in keys]
    forms = [form for each in sides for form in engine.forms(kind, each)]
    lacking = (engine.ungranted(kind, caller, each, at) for each in sides)
    return PolicyExplanation(
        outcome=outcome,
        rule=decision.rule,
        policy=engine.policy_hash,
        principal=caller.principal,
        roles=tuple(sorted(caller.roles)),
        decided_as=tuple(dict.fromkeys(form.kind for form in forms)),
        demands=decision.approvals,
        needed=tuple(
            _needed(engine, next(filter(None, lacking), kind), outcome, decision)
        ),
        rules=tuple(_explained_rules(engine.rules_about(kind), caller, sides, at)),
    )


def _needed(
    engine: RuleEngine, kind: str, outcome: PolicyOutcome, decision: Decision
) -> Iterator[str]:
    """Give what would be needed, a sentence each; a grant, if any, is of *kind*."""
    rule = decision.rule
    if outcome is PolicyOutcome.APPROVAL:
        yield from map(_demand_in_words, decision.approvals)
    elif rule == DEFAULT_DENY:
        granted = [
            r.value for r, kinds in engine.policy.grants.items() if kind in kinds
        ]
        if granted:
            yield f"{kind} requires one of these roles: {', '.join(granted)}."
        else:
            yield f"No role grants {kind}. Add a rule that allows it."
    elif rule.startswith(UPDATE_GIVES):
        gained = rule.removeprefix(UPDATE_GIVES)
        yield f"The change would grant the caller {gained} on the key."
    elif outcome is PolicyOutcome.DENY:
        yield f"The rule {rule} denies it. No other rule or role overrides a denial."


def _demand_in_words(demand: ApprovalDemand) -> str:
    people = "another person" if demand.quorum == 1 else f"{demand.quorum} other people"
    text = f"Approval by {people}"
    if demand.roles:
        text += f" with a role of {', '.join(demand.roles)}"
    if demand.distinct_roles:
        text += f", including one each as {' and '.join(demand.distinct_roles)}"
    if demand.signed:
        text += ", signed"
    text += f", within {demand.seconds} seconds"
    if demand.uses > 1:
        text += f", valid for up to {demand.uses} uses"
    return f"{text} ({demand.rule})."


def _explained_rules(
    rules: Sequence[HeldRule], caller: Caller, sides: Sequence[Sides], at: int
) -> Iterable[RuleExplanation]:
    """Return one explanation a rule: of the form of the request for which it holds."""
    found: dict[str, RuleExplanation] = {}
    for held in rules:
        said = _explained(held, caller, sides, at)
        if said.name not in found or (said.holds and not found[said.name].holds):
            found[said.name] = said
    return found.values()


def _explained(
    held: HeldRule, caller: Caller, sides: Sequence[Sides], at: int
) -> RuleExplanation:
    rule, kind = held.rule, held.form.kind
    clause = clause_of(rule, held.form, caller, at)
    reached = [r for each in sides if (r := held.form.reached(each)) is not None]
    if clause is None or not reached:
        holds = False
    elif rule.effect is RuleEffect.ALLOW:
        holds = all(applies_to_all(rule, clause, each) for each in reached)
    else:
        holds = any(applies_to_any(rule, clause, each) for each in reached)
    every = tuple(dict.fromkeys(side for each in sides for side in each))
    missing: tuple[str, ...] = ()
    if not holds and not reached:
        missing = ("usages",) if every else ("key",)
    elif not holds:
        missing = _missing(rule, caller, every, at)
    return RuleExplanation(
        name=rule.name,
        effect=rule.effect.value,
        operation=kind,
        holds=holds,
        missing=missing,
    )


def _missing(
    rule: PolicyRule, caller: Caller, sides: Sides, at: int
) -> tuple[str, ...]:
    """Return what keeps a rule from holding: conditions, or else its exception."""
    match = rule.match
    found = list(_missing_of_caller(match.caller, caller))
    if match.window is not None and not match.window.holds(at):
        found.append("time")
    if rule.is_about_keys and not sides:
        return (*found, "key")
    found += dict.fromkeys(
        n for side in sides for n in _missing_of_key(match, caller, side)
    )
    return tuple(found) or ("except",)


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
