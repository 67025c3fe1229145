# SPDX-License-Identifier: MIT
"""Policy engine: pure functions of operation, caller, key facts and time."""

from hsm_core._internal.policy.changes import decide_update, facts_after
from hsm_core._internal.policy.deciding import decide_on
from hsm_core._internal.policy.engine import RuleEngine, policy_of
from hsm_core._internal.policy.explaining import explain
from hsm_core._internal.policy.holder import PolicyHolder
from hsm_core._internal.policy.outcomes import DEFAULT_DENY, joined, outcome_of_rule
from hsm_core._internal.policy.recognising import Recogniser
from hsm_core._internal.policy.reloading import PolicyReloader
from hsm_core._internal.policy.replay import change_of

__all__ = [
    "DEFAULT_DENY",
    "PolicyHolder",
    "PolicyReloader",
    "Recogniser",
    "RuleEngine",
    "change_of",
    "decide_on",
    "decide_update",
    "explain",
    "facts_after",
    "joined",
    "outcome_of_rule",
    "policy_of",
]
