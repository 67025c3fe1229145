# SPDX-License-Identifier: MIT
"""Partial evaluation of a rule for a given caller, operation and time."""

from __future__ import annotations

from collections.abc import Iterable

from hsm_core._internal.policy.system_callers import SYSTEM_GRANTS
from hsm_core._policies.operations import Form
from hsm_core._policies.rules import PolicyRule
from hsm_core.model import Caller
from hsm_core.protocols import KeyClause, KeyFacts


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
