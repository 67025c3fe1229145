# SPDX-License-Identifier: MIT
"""Policy engine: grants by role, then rules, in any order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any, Final

import msgspec

from hsm_core import policies
from hsm_core._internal.policy.changes import decide_update, freed, freeing
from hsm_core._internal.policy.facts import (
    CLOCK,
    SYSTEM_GRANTS,
    StatedFacts,
    asked_of,
    asking_rule,
    joined,
    sides_as_asked,
)
from hsm_core._policies.policy_file import RuleEffect
from hsm_core._policies.rules import (
    DEFAULT_DENY,
    KNOWN_OPERATIONS,
    TWINS,
    Form,
    Policy,
    PolicyRule,
)
from hsm_core.model import ApprovalDemand, Caller, Role
from hsm_core.operations import Operation, UpdateKey
from hsm_core.protocols import Decision, KeyClause, KeyFacts, KeyScope
from hsm_core.settings import PolicyProfile, Settings


def clause_of(
    rule: PolicyRule, form: Form, caller: Caller, at: int
) -> KeyClause | None:
    """
    Return the keys that a rule matches in a request; None if it can't match.

    An exception is asked for the operation that the request is decided as. Of a use
    that an export makes possible, it is also asked for the export itself.

    Rules about who asks say nothing of the HSM's own doings, which come from nowhere,
    unless they name one of these.
    """
    if caller.principal in SYSTEM_GRANTS and rule.is_about_callers:
        return None
    if not rule.match.concern(form.kind, caller, at):
        return None
    unless, exclusion = None, rule.exclusion
    excepted = (form.kind,) if form.needs_grant else (form.kind, form.requested)
    if exclusion is not None and any(
        exclusion.concern(kind, caller, at) for kind in excepted
    ):
        if not exclusion.is_about_keys:
            return None
        unless = exclusion.key_terms(caller)
    return KeyClause(rule.match.key_terms(caller), unless)


def applies(rule: PolicyRule, clause: KeyClause, sides: Iterable[KeyFacts]) -> bool:
    """Return whether a rule holds: an allowance for every key, others for any."""
    found = [clause.covers(side) for side in sides]
    holds = all if rule.effect is RuleEffect.ALLOW else any
    return holds(found) if found else not rule.is_about_keys


_PURGE: Final = frozenset({"AllowPurges", "PurgeVersion"})
_DESCRIBE: Final = "DescribeKey"
_LIST: Final = "ListKeys"
_WITHDRAWABLE: Final = {"Withdraw": "Approve"}
"""Who may do the second may do the first, whether or not a policy says so."""


_NO_RULES: Final[dict[RuleEffect, tuple[HeldRule, ...]]] = dict.fromkeys(RuleEffect, ())


class _Question(msgspec.Struct, frozen=True):
    """What is asked of the policy, but for the keys."""

    kind: str
    caller: Caller
    at: int


class HeldRule(msgspec.Struct, frozen=True):
    """A rule, and the form of a request that it is about."""

    rule: PolicyRule
    form: Form


class RuleEngine:
    """
    Policy engine: decides on requests by a policy file.

    Args:
        policy: What to enforce; by default the built-in one.

        knows_time: Whether the clock is right. If not, rules with time windows allow
            nothing, and deny what they would deny or ask approval for at some time.

    Attributes:
        policy: The same.
    """

    def __init__(
        self, policy: Policy | None = None, *, knows_time: bool = True
    ) -> None:
        self.policy = policy or policies.built_in_policy(PolicyProfile.DEFAULT)
        rules = self.policy.rules
        timed = () if knows_time else tuple(rule for rule in rules if rule.is_timed)
        self._lapsed = [rule for rule in timed if rule.effect is RuleEffect.ALLOW]
        self._decided = tuple(
            _at_any_time(rule) if rule in timed else rule
            for rule in rules
            if rule not in self._lapsed
        )
        # A policy never changes; one that takes its place has an engine of its own.
        # So the twins of each operation are looked up once, and not for each request.
        self._granted: dict[tuple[str, frozenset[Role]], str | None] = {}
        self._twins = {
            kind: tuple(twin for twin in TWINS if twin.requested == kind)
            for kind in KNOWN_OPERATIONS
        }
        self._rules: dict[str, dict[RuleEffect, tuple[HeldRule, ...]]] = {
            kind: {effect: tuple(self._about(kind, effect)) for effect in RuleEffect}
            for kind in KNOWN_OPERATIONS
        }

    def _about(self, kind: str, effect: RuleEffect) -> Iterator[HeldRule]:
        """Give the rules about an operation, and those about a twin of it."""
        own = Form(kind, kind)
        for rule in self._decided:
            if rule.effect is not effect:
                continue
            if rule.match.names(kind):
                yield HeldRule(rule, own)
            if effect is not RuleEffect.ALLOW:
                twins = self._twins[kind]
                yield from (HeldRule(rule, t) for t in twins if _holds_for(rule, t))

    @property
    def policy_hash(self) -> str:
        """SHA-256 of the policy, hex."""
        return self.policy.policy_hash

    def asks_for_the_time(self, kind: str, /) -> bool:
        """Whether a rule about *kind*, or a twin of it, holds at some times only."""
        kinds = (kind, *(twin.kind for twin in self._twins.get(kind, ())))
        return any(
            rule.is_timed and any(map(rule.match.names, kinds))
            for rule in self.policy.rules
        )

    def allows_revoked(self, kind: str, /) -> bool:
        """Whether *kind* may use a revoked version."""
        return kind in self.policy.revoked_uses

    def decide(
        self,
        operation: Operation[object],
        caller: Caller,
        key: KeyFacts | None,
        /,
        *,
        at: int,
    ) -> Decision:
        """
        Decide; the default is to deny.

        Args:
            operation: Resolved as far as it could be.

            caller: Who asks.

            key: The key that it is about; None if it is about none, or if that key is
                missing: rules about keys say nothing then.

            at: When, in microseconds since 1970.
        """
        return self.decide_asked(asked_of(operation), caller, key, at)

    def decide_asked(
        self, asked: StatedFacts, caller: Caller, key: KeyFacts | None, at: int
    ) -> Decision:
        """Decide as `decide` does, on what is known of an operation."""
        kind = asked.kind
        decision = self.judge(kind, caller, sides_as_asked(asked, caller, key), at)
        if decision.allowed:
            return decision
        seen: tuple[KeyFacts, ...] = ()
        if key is not None:
            # What is denied whatever the key, is denied alike if there is none.
            blind = self.judge(kind, caller, sides_as_asked(asked, caller, None), at)
            if blind.allowed:
                seen = (key,)
            else:
                decision = blind
        described = self.judge(_DESCRIBE, caller, seen, at)
        return _denial(decision.rule, may_describe=described.allowed)

    def judge(
        self, kind: str, caller: Caller, sides: tuple[KeyFacts, ...], at: int
    ) -> Decision:
        """
        Decide on facts, as they are or as they were recorded.

        Args:
            kind: Name of the operation.

            caller: Who asks.

            sides: Facts of the keys that it is about; see `sides_as_asked`.

            at: When, in microseconds since 1970.

        Returns:
            A decision whose *may_describe* says nothing of a denial.
        """
        question, rules = _Question(kind, caller, at), self._rules.get(kind, _NO_RULES)
        if rules[RuleEffect.DENY]:
            for rule in self._applying(RuleEffect.DENY, question, sides):
                return _denial(rule.name, may_describe=False)
        granted = self._granted_by(kind, caller) or self._allowed_by(question, sides)
        if granted is None or (
            self._twins.get(kind) and self.ungranted(kind, caller, sides, at)
        ):
            return _denial(self._missing(question), may_describe=False)
        demands: tuple[ApprovalDemand, ...] = ()
        if rules[RuleEffect.REQUIRE_APPROVAL]:
            asking = self._applying(RuleEffect.REQUIRE_APPROVAL, question, sides)
            found = (rule.demand for rule in asking if rule.demand is not None)
            demands = tuple(dict.fromkeys(found))
        if kind in _PURGE and not demands:
            demands = (_purge_demand(),)
        return Decision(
            allowed=True,
            may_describe=True,
            rule=asking_rule(demands) if demands else granted,
            approvals=demands,
        )

    def without_time(self) -> RuleEngine:
        """Return an engine of the same policy for a node whose clock is wrong."""
        is_timed = any(rule.is_timed for rule in self.policy.rules)
        return RuleEngine(self.policy, knows_time=False) if is_timed else self

    def _missing(self, question: _Question) -> str:
        """Return what to record where nothing allows a request."""
        kind, caller = question.kind, question.caller
        for rule in self._lapsed:
            if rule.match.names(kind) and rule.match.caller.fulfilled_by(caller):
                return CLOCK + rule.name
        return DEFAULT_DENY

    def ungranted(
        self, kind: str, caller: Caller, sides: tuple[KeyFacts, ...], at: int
    ) -> str:
        """Return the first form of a request that nothing grants the caller, or ""."""
        for form in self.forms(kind, sides):
            if not form.needs_grant or self._granted_by(form.kind, caller):
                continue
            reached = form.reached(sides) or ()
            if not self._allowed_by(_Question(form.kind, caller, at), reached):
                return form.kind
        return ""

    def forms(self, kind: str, sides: tuple[KeyFacts, ...]) -> tuple[Form, ...]:
        """Return the operations that a request is decided as, itself first."""
        forms = (Form(kind, kind), *self._twins.get(kind, ()))
        return tuple(form for form in forms if form.reached(sides) is not None)

    def rules_about(self, kind: str) -> tuple[HeldRule, ...]:
        """Return the rules about an operation or a twin of it, in order of names."""
        found = [held for rules in self._rules[kind].values() for held in rules]
        return tuple(sorted(found, key=lambda held: held.rule.name))

    def undecided(self, kind: str, caller: Caller, at: int) -> tuple[str, ...]:
        """Return the rules and grants that decide by the keys of a request alone."""
        found = []
        for held in self.rules_about(kind):
            is_by_key = held.rule.is_about_keys or held.form.usage is not None
            if is_by_key and held.rule.effect is not RuleEffect.ALLOW:
                if clause_of(held.rule, held.form, caller, at) is not None:
                    found.append(f"rule {held.rule.name}")
        for form in (Form(kind, kind), *self._twins.get(kind, ())):
            if not form.needs_grant or self._granted_by(form.kind, caller):
                continue
            question = _Question(form.kind, caller, at)
            allowing = [rule for rule, *_ in self._holding(RuleEffect.ALLOW, question)]
            if all(rule.is_about_keys for rule in allowing):
                found += [f"rule {rule.name}" for rule in allowing]
                found += [f"grant of {form.kind}"] if form.usage is not None else []
        return tuple(dict.fromkeys(found))

    def visible(self, caller: Caller, /, *, at: int) -> KeyScope:
        """Return the keys that the caller may both describe and list."""
        granted: list[tuple[KeyClause, ...]] = []
        withheld: list[KeyClause] = []
        for kind in (_DESCRIBE, _LIST):
            question = _Question(kind, caller, at)
            if self._granted_by(kind, caller) is None:
                allowing = self._holding(RuleEffect.ALLOW, question)
                granted.append(tuple(clause for _, clause, _ in allowing))
            denying = self._holding(RuleEffect.DENY, question)
            withheld += [clause for _, clause, _ in denying]
            withheld += [
                clause
                for rule, clause, _ in self._holding(
                    RuleEffect.REQUIRE_APPROVAL, question
                )
                # A listing that was approved as such shows its keys.
                if kind != _LIST or rule.is_about_keys
            ]
        return KeyScope(tuple(granted), tuple(withheld))

    def freed(self, before: KeyFacts, after: KeyFacts, /) -> tuple[ApprovalDemand, ...]:
        """Return demands that would no longer apply, for any caller and time."""
        return freed(self.policy, before, after)

    def freeing(self, before: KeyFacts, after: KeyFacts, /) -> tuple[str, ...]:
        """Return the names of rules that a change would free a key from."""
        return tuple(rule.name for rule in freeing(self.policy, before, after))

    def _holding(
        self, effect: RuleEffect, question: _Question, sides: tuple[KeyFacts, ...] = ()
    ) -> Iterator[tuple[PolicyRule, KeyClause, tuple[KeyFacts, ...]]]:
        """Give the rules that hold for some key, for which, and the keys to ask of."""
        for held in self._rules.get(question.kind, _NO_RULES)[effect]:
            reached = held.form.reached(sides)
            if reached is None:
                continue
            clause = clause_of(held.rule, held.form, question.caller, question.at)
            if clause is not None:
                yield held.rule, clause, reached

    def _applying(
        self, effect: RuleEffect, question: _Question, sides: tuple[KeyFacts, ...]
    ) -> Iterator[PolicyRule]:
        """Give the rules that hold for one of the keys, or without any."""
        for rule, clause, reached in self._holding(effect, question, sides):
            if applies(rule, clause, reached):
                yield rule

    def _granted_by(self, kind: str, caller: Caller) -> str | None:
        if kind in SYSTEM_GRANTS.get(caller.principal, ()):
            return caller.principal
        asked = kind, caller.roles
        if asked not in self._granted:
            self._granted[asked] = self._granted_to(kind, caller.roles)
        return self._granted[asked]

    def _granted_to(self, kind: str, roles: frozenset[Role]) -> str | None:
        kinds = {kind, _WITHDRAWABLE.get(kind, kind)}
        for role in Role:
            if role in roles and not kinds.isdisjoint(self.policy.grants[role]):
                return f"role:{role}"
        return None

    def _allowed_by(
        self, question: _Question, sides: tuple[KeyFacts, ...]
    ) -> str | None:
        """Return the rule that allows it; a listing shows only what it is about."""
        for rule, clause, _ in self._holding(RuleEffect.ALLOW, question):
            if question.kind == _LIST or applies(rule, clause, sides):
                return f"allow:{rule.name}"
        if question.kind in _WITHDRAWABLE:
            done = msgspec.structs.replace(question, kind=_WITHDRAWABLE[question.kind])
            return self._allowed_by(done, sides)
        return None


def _at_any_time(rule: PolicyRule) -> PolicyRule:
    """Return a rule that denies whatever a timed one says something of at some time."""
    exclusion = rule.exclusion
    if exclusion is not None and exclusion.window is not None:
        exclusion = None
    return msgspec.structs.replace(
        rule,
        name=CLOCK + rule.name,
        effect=RuleEffect.DENY,
        match=msgspec.structs.replace(rule.match, window=None),
        exclusion=exclusion,
        demand=None,
    )


def _holds_for(rule: PolicyRule, twin: Form) -> bool:
    """Return whether a rule says more of a request by being about a twin of it."""
    if not rule.match.names(twin.kind):
        return False
    excepted = rule.exclusion.operations if rule.exclusion is not None else None
    return excepted is not None or not rule.match.names(twin.requested)


def policy_of(settings: Settings) -> Policy:
    """
    Return the policy that settings name.

    Raises:
        ConfigurationError: A file is named, and holds no valid policy.
    """
    if settings.policy_config is not None:
        return policies.load_policy(settings.policy_config, for_use=True)
    return policies.built_in_policy(settings.policy_profile)


@cache
def _purge_demand() -> ApprovalDemand:
    """Return what is asked for before a purge, whatever a policy leaves out."""
    policy = policies.built_in_policy(PolicyProfile.DEFAULT)
    (demand,) = (r.demand for r in policy.rules if r.name == "retention-purge")
    assert demand is not None  # noqa: S101 (for the type checker)
    return demand


def _denial(rule: str, *, may_describe: bool) -> Decision:
    return Decision(allowed=False, may_describe=may_describe, rule=rule)


def decide_on(
    engine: RuleEngine,
    operation: Operation[Any],
    caller: Caller,
    key: KeyFacts | None,
    at: int,
) -> Decision:
    """Decide on an operation because of one of its keys, or without any."""

    def decide(operation: Operation[Any], key: KeyFacts) -> Decision:
        return engine.decide(operation, caller, key, at=at)

    if isinstance(operation, UpdateKey) and key is not None:
        return decide_update(decide, operation, key, freed=engine.freed)
    return engine.decide(operation, caller, key, at=at)


def decide_as_asked(
    engine: RuleEngine,
    asked: StatedFacts,
    caller: Caller,
    keys: Sequence[KeyFacts | None],
    at: int,
) -> Decision:
    """
    Decide as `decide_on` does, once for each key, on what is known of a request.

    Args:
        engine: The policy.

        asked: What the request says.

        caller: Who asks.

        keys: At least one: the key that it is about or None, then those that it names
            besides.

        at: When, in microseconds since 1970.
    """
    decisions = []
    for key in keys:
        if asked.kind == UpdateKey.__name__ and key is not None:
            change = UpdateKey(
                key_id=key.key_id, name=asked.name, owner=asked.owner, tags=asked.tags
            )
            decision = decide_on(engine, change, caller, key, at)
        else:
            decision = engine.decide_asked(asked, caller, key, at)
        if not decision.allowed:
            return decision
        decisions.append(decision)
    return joined(decisions)
