# SPDX-License-Identifier: MIT
"""The built-in policy: role grants, default deny."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

from hsm_core._internal.policy.roles import GRANTS, REVOKED_USES
from hsm_core.model import Caller, Role
from hsm_core.operations import Operation
from hsm_core.protocols import Decision, KeyFacts

__all__ = ["RolePolicy"]


class RolePolicy:
    """
    Grants by role alone.

    Args:
        grants: Operation names by role.

        revoked_uses: Operations that may use revoked versions.
    """

    def __init__(
        self,
        grants: Mapping[Role, frozenset[str]] = GRANTS,
        revoked_uses: frozenset[str] = REVOKED_USES,
    ) -> None:
        self._grants = grants
        self._revoked_uses = revoked_uses
        table = {role.value: sorted(kinds) for role, kinds in grants.items()}
        text = json.dumps([table, sorted(revoked_uses)], sort_keys=True)
        self._hash = hashlib.sha256(text.encode()).hexdigest()

    @property
    def policy_hash(self) -> str:
        """SHA-256 of the table, hex."""
        return self._hash

    def decide(
        self, operation: Operation[object], caller: Caller, key: KeyFacts | None, /
    ) -> Decision:
        """Decide by the caller's roles; the rule names the first role that grants."""
        kind = type(operation).__name__
        granting = [role for role in Role if self._granted(role, caller, kind)]
        return Decision(
            allowed=bool(granting),
            may_describe=any(self._granted(r, caller, "DescribeKey") for r in Role),
            rule=f"role:{granting[0]}" if granting else "default-deny",
        )

    def allows_revoked(self, kind: str, /) -> bool:
        """Whether *kind* may use a revoked version."""
        return kind in self._revoked_uses

    def _granted(self, role: Role, caller: Caller, kind: str) -> bool:
        return role in caller.roles and kind in self._grants.get(role, frozenset())
