# SPDX-License-Identifier: MIT
"""Who may do what: pure functions of operation, caller, key facts and time."""

from hsm_core._internal.policy.changes import decide_update
from hsm_core._internal.policy.engine import RuleEngine, policy_of
from hsm_core._internal.policy.holder import PolicyHolder
from hsm_core._internal.policy.outcomes import joined, outcome_of_rule

__all__ = [
    "PolicyHolder",
    "RuleEngine",
    "decide_update",
    "joined",
    "outcome_of_rule",
    "policy_of",
]
