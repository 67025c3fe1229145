# SPDX-License-Identifier: MIT
"""What is left of a rule once it is known who asks, for what and when."""

from __future__ import annotations

from collections.abc import Iterable

from hsm_core._internal.policy.system_callers import SYSTEM_GRANTS
from hsm_core._policies.rules import PolicyRule
from hsm_core.model import Caller
from hsm_core.protocols import KeyClause, KeyFacts


def clause_of(rule: PolicyRule, kind: str, caller: Caller, at: int) -> KeyClause | None:
    """
    Return which keys a rule is about in a request; None if it does not hold at all.

    Rules about who asks say nothing of the HSM's own doings, which come from nowhere,
    unless they name one of these.
    """
    if caller.principal in SYSTEM_GRANTS and rule.is_about_callers:
        return None
    if not rule.match.concern(kind, caller, at):
        return None
    unless, exclusion = None, rule.exclusion
    if exclusion is not None and exclusion.concern(kind, caller, at):
        if not exclusion.is_about_keys:
            return None
        unless = exclusion.key_terms(caller)
    return KeyClause(rule.match.key_terms(caller), unless)


def applies_to_any(
    rule: PolicyRule, clause: KeyClause, sides: Iterable[KeyFacts]
) -> bool:
    """Return whether a rule holds for one of the keys, or without any."""
    found = [clause.covers(side) for side in sides]
    return any(found) if found else not rule.is_about_keys


def applies_to_all(
    rule: PolicyRule, clause: KeyClause, sides: Iterable[KeyFacts]
) -> bool:
    """Return whether a rule holds for every one of the keys, or without any."""
    found = [clause.covers(side) for side in sides]
    return all(found) if found else not rule.is_about_keys
