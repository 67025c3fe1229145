# SPDX-License-Identifier: MIT
"""
Names of policy decisions in the audit log.

No rule has a name with a colon, and none begins with what the HSM's own doings do.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Final

from hsm_core.identities import SYSTEM_PREFIX
from hsm_core.model import ApprovalDemand, PolicyOutcome
from hsm_core.protocols import Decision

DEFAULT_DENY: Final = "default-deny"
"""Pseudo-rule of a request that no role or rule grants."""

_APPROVAL: Final = "approval:"
_ALLOWING: Final = ("role:", "allow:", SYSTEM_PREFIX)


def asking_rule(demands: Iterable[ApprovalDemand]) -> str:
    """Return what is recorded where rules ask for approvals."""
    return _APPROVAL + "+".join(sorted({demand.rule for demand in demands}))


def outcome_of_rule(rule: str) -> PolicyOutcome:
    """Return what a decision was, by the rule that was recorded."""
    if rule.startswith(_APPROVAL):
        return PolicyOutcome.APPROVAL
    return PolicyOutcome.ALLOW if rule.startswith(_ALLOWING) else PolicyOutcome.DENY


def joined(decisions: Sequence[Decision]) -> Decision:
    """
    Return what decisions about several keys of one operation come to.

    Args:
        decisions: At least one; all allow.
    """
    # By what they say: while a refused file is cut down to, two may have one name.
    demands = tuple(dict.fromkeys(demand for d in decisions for demand in d.approvals))
    if not demands:
        return decisions[0]
    return replace(decisions[0], approvals=demands, rule=asking_rule(demands))
