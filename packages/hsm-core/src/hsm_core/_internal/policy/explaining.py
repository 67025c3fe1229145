# SPDX-License-Identifier: MIT
"""Explanation of a policy decision, and replay of recorded requests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, TypeAlias

import msgspec

from hsm_core import wire
from hsm_core._internal.policy.changes import UPDATE_GIVES
from hsm_core._internal.policy.engine import (
    HeldRule,
    RuleEngine,
    applies,
    clause_of,
    decide_as_asked,
)
from hsm_core._internal.policy.facts import (
    StatedFacts,
    certificate_facts,
    outcome_of_rule,
    sides_as_asked,
)
from hsm_core._policies.policy_file import RuleEffect
from hsm_core._policies.rules import (
    DEFAULT_DENY,
    KNOWN_OPERATIONS,
    CallerTerms,
    Conditions,
    PolicyRule,
)
from hsm_core.model import (
    ApprovalDemand,
    AuditedCaller,
    AuditedKey,
    AuditEvent,
    Caller,
    KeyState,
    Parameters,
    Phase,
    PolicyOutcome,
    Role,
)
from hsm_core.operations import PolicyChange, PolicyExplanation, RuleExplanation
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
    hold_for = all if rule.effect is RuleEffect.ALLOW else any
    holds = (
        clause is not None
        and bool(reached)
        and hold_for(applies(rule, clause, each) for each in reached)
    )
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
    for name in CallerTerms.__struct_fields__:
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


OTHER_FACTS: Final = ("algorithm", "name", "owner", "tags", "usages")
"""Recorded facts of a further key, named ``<field without _id>_<fact>``."""

_ROLES: Final = {role.value: role for role in Role}


def was_decided(event: AuditEvent) -> bool:
    """
    Return whether a record is that of a request on which the policy has decided.

    A change has its decision in the intent record; the outcome has no new one.
    """
    return (
        event.phase is not Phase.OUTCOME
        and event.caller is not None
        and bool(event.rule)
        and event.kind in KNOWN_OPERATIONS
    )


def change_of(event: AuditEvent, engine: RuleEngine) -> PolicyChange | None:
    """
    Return how the outcome of a recorded request would change, or None.

    Other people, more of them, or for another time, are another outcome; rules that ask
    for the same under other names are not.
    """
    if not was_decided(event) or event.caller is None:
        return None
    decision = decision_on(event, event.caller, engine)
    before, after = outcome_of_rule(event.rule), outcome_of_rule(decision.rule)
    if before is after and _asked_for(event.demands) == _asked_for(decision.approvals):
        return None
    return PolicyChange(
        seq=event.seq,
        time=event.time,
        principal=event.caller.principal,
        operation=event.kind,
        key_id=event.key_id,
        before=before,
        before_rule=event.rule,
        after=after,
        after_rule=decision.rule,
        before_demands=event.demands,
        after_demands=decision.approvals,
    )


def _asked_for(demands: tuple[ApprovalDemand, ...]) -> frozenset[bytes]:
    """Return what is asked for, whichever rules ask."""
    return frozenset(
        wire.encode_packed(msgspec.structs.replace(demand, rule=""))
        for demand in demands
    )


def decision_on(event: AuditEvent, who: AuditedCaller, engine: RuleEngine) -> Decision:
    """Decide again on a recorded request, as far as its record tells of it."""
    caller = Caller(
        principal=who.principal,
        roles=frozenset(_ROLES[name] for name in who.roles if name in _ROLES),
        credential_id=who.credential_id,
        certificate_sha256=who.certificate_sha256,
        **certificate_facts(event.parameters),
        source_address=who.source_address,
    )
    keys = [_facts(event.key), *_others(event.parameters)]
    return decide_as_asked(engine, _asked(event), caller, keys, event.time)


def _asked(event: AuditEvent) -> StatedFacts:
    found = event.parameters
    return StatedFacts(
        kind=event.kind,
        algorithm=_text(found, "algorithm"),
        usages=_list(found, "usages"),
        name=_text(found, "name"),
        owner=_text(found, "owner"),
        tags=_list(found, "tags"),
    )


def _facts(key: AuditedKey | None) -> KeyFacts | None:
    if key is None:
        return None
    return KeyFacts(
        key_id="",
        algorithm=key.algorithm,
        state=KeyState(key.state) if key.state in set(KeyState) else KeyState.ACTIVE,
        name=key.name,
        owner=key.owner,
        tags=frozenset(key.tags),
        usages=frozenset(key.usages),
    )


def _others(parameters: Parameters) -> list[KeyFacts]:
    """Return the further keys that a record tells of."""
    found = []
    for name in sorted(parameters):
        stem = name.removesuffix("_key_id")
        if stem == name or f"{stem}_key_algorithm" not in parameters:
            continue
        of = {fact: f"{stem}_key_{fact}" for fact in OTHER_FACTS}
        found.append(
            KeyFacts(
                key_id="",
                algorithm=_text(parameters, of["algorithm"]) or "",
                state=KeyState.ACTIVE,
                name=_text(parameters, of["name"]) or "",
                owner=_text(parameters, of["owner"]) or "",
                tags=frozenset(_list(parameters, of["tags"]) or ()),
                usages=frozenset(_list(parameters, of["usages"]) or ()),
            )
        )
    return found


def _text(parameters: Mapping[str, object], name: str) -> str | None:
    value = parameters.get(name)
    return value if isinstance(value, str) else None


def _list(parameters: Mapping[str, object], name: str) -> tuple[str, ...] | None:
    value = parameters.get(name)
    return tuple(map(str, value)) if isinstance(value, list) else None
