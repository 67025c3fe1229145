# SPDX-License-Identifier: MIT
"""Methods about the policy."""

from __future__ import annotations

from collections.abc import Iterable

from hsm_core import operations as ops
from hsm_core._sessions.base import SessionBase
from hsm_core.model import Role


class PolicyMethods(SessionBase):
    """What is in force, what it would say, and what another would change."""

    def policy(self) -> ops.PolicyInfo:
        """Return the policy in force; see `ShowPolicy`."""
        return self._hsm.execute(ops.ShowPolicy())

    def explain_policy(
        self,
        operation: str,
        principal: str,
        *,
        roles: Iterable[Role] = (),
        key_id: str = "",
        other_key_ids: Iterable[str] = (),
    ) -> ops.PolicyExplanation:
        """Say what the policy would say to a request; see `ExplainPolicy`."""
        return self._hsm.execute(
            ops.ExplainPolicy(
                operation=operation,
                principal=principal,
                roles=tuple(roles),
                key_id=key_id,
                other_key_ids=tuple(other_key_ids),
            )
        )

    def test_policy(self, policy: str) -> ops.PolicyTest:
        """Replay the whole trail against a policy; see `TestPolicy`."""
        first = found = self._hsm.execute(ops.TestPolicy(policy=policy))
        changes, requests = list(found.changes), found.requests
        while found.next_seq is not None:
            found = self._hsm.execute(
                ops.TestPolicy(policy=policy, start_seq=found.next_seq)
            )
            changes += found.changes
            requests += found.requests
        return ops.PolicyTest(
            policy=first.policy,
            warnings=first.warnings,
            start_seq=first.start_seq,
            next_seq=None,
            requests=requests,
            changes=tuple(changes),
        )
