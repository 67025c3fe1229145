# SPDX-License-Identifier: MIT
"""The built-in policy: role grants, rules for algorithms, default deny."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence

from hsm_core._internal.policy.governance import PROFILES, AlgorithmRule
from hsm_core._internal.policy.roles import GRANTS, REVOKED_USES
from hsm_core._internal.system_callers import SYSTEM_GRANTS
from hsm_core.algorithms import Algorithm
from hsm_core.model import ApprovalDemand, Caller, Role
from hsm_core.operations import Operation
from hsm_core.protocols import Decision, KeyFacts
from hsm_core.settings import PolicyProfile

__all__ = ["RolePolicy"]


class RolePolicy:
    """
    Grants by role, narrowed by rules for algorithms.

    Args:
        grants: Operation names by role.

        revoked_uses: Operations that may use revoked versions.

        rules: What is asked besides, where the algorithm is of certain ones.
    """

    def __init__(
        self,
        grants: Mapping[Role, frozenset[str]] = GRANTS,
        revoked_uses: frozenset[str] = REVOKED_USES,
        rules: Sequence[AlgorithmRule] = PROFILES[PolicyProfile.DEFAULT],
    ) -> None:
        self._grants = grants
        self._revoked_uses = revoked_uses
        self._rules = tuple(rules)
        table = {role.value: sorted(kinds) for role, kinds in grants.items()}
        stated = [rule.as_text() for rule in self._rules]
        text = json.dumps([table, sorted(revoked_uses), stated], sort_keys=True)
        self._hash = hashlib.sha256(text.encode()).hexdigest()

    @property
    def policy_hash(self) -> str:
        """SHA-256 of grants and rules, hex."""
        return self._hash

    def decide(
        self, operation: Operation[object], caller: Caller, key: KeyFacts | None, /
    ) -> Decision:
        """
        Decide by the caller's roles, then by the rules that concern the algorithm.

        The deciding rule is the first role that grants, or the rule that denies.
        """
        kind = type(operation).__name__
        may_describe = any(self._granted(r, caller, "DescribeKey") for r in Role)
        granting = [
            f"role:{role}" for role in Role if self._granted(role, caller, kind)
        ]
        if kind in SYSTEM_GRANTS.get(caller.principal, ()):
            granting = [caller.principal]
        if not granting:
            return _denial("default-deny", may_describe=may_describe)
        approvals: dict[ApprovalDemand, None] = {}
        for rule in self._concerning(operation, key):
            if rule.roles is not None and rule.roles.isdisjoint(caller.roles):
                return _denial(rule.name, may_describe=may_describe)
            approvals |= dict.fromkeys(rule.approvals)
        return Decision(
            allowed=True,
            may_describe=may_describe,
            rule=granting[0],
            approvals=tuple(approvals),
        )

    def allows_revoked(self, kind: str, /) -> bool:
        """Whether *kind* may use a revoked version."""
        return kind in self._revoked_uses

    def _granted(self, role: Role, caller: Caller, kind: str) -> bool:
        return role in caller.roles and kind in self._grants.get(role, frozenset())

    def _concerning(
        self, operation: Operation[object], key: KeyFacts | None
    ) -> list[AlgorithmRule]:
        """Return the rules about this operation; of a new key, about its algorithm."""
        kind = type(operation).__name__
        name = getattr(operation, "algorithm", None) or (key.algorithm if key else "")
        try:
            algorithm = Algorithm(name)
        except ValueError:
            return []  # It could not be resolved, which is refused right after.
        return [rule for rule in self._rules if rule.concerns(kind, algorithm)]


def _denial(rule: str, *, may_describe: bool) -> Decision:
    return Decision(allowed=False, may_describe=may_describe, rule=rule)
