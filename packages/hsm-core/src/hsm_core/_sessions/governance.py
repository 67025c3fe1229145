# SPDX-License-Identifier: MIT
"""Session methods for approvals, policy and retention."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime
from typing import Self

from hsm_core import operations as ops
from hsm_core._sessions.base import Accompanied, SessionBase
from hsm_core.model import ApprovalState, KeyInfo, Role


class ApprovalMethods(SessionBase):
    """Requests for approval, and what people say to them."""

    def under(self, approval_id: str) -> Self:
        """
        Return a session whose operations are done under one approval.

        An operation that needs an approval is then refused where this one is for
        something else or came to an end. Without it, the HSM looks for one.
        """
        return type(self)(Accompanied(self._hsm, approval_id=approval_id))

    def approvals(
        self,
        *,
        states: Iterable[ApprovalState] = (),
        kind: str = "",
        key_id: str = "",
        requester: str = "",
    ) -> Iterator[ops.ApprovalInfo]:
        """Give all approvals that fit, newest first; see `ListApprovals`."""
        first = ops.ListApprovals(
            states=tuple(states), kind=kind, key_id=key_id, requester=requester
        )
        for page in self._pages(first):
            yield from page.items

    def approval(self, approval_id: str) -> ops.ApprovalInfo:
        """Return one approval; see `GetApproval`."""
        return self._hsm.execute(ops.GetApproval(approval_id=approval_id))

    def approve(
        self,
        approval_id: str,
        *,
        digest: str,
        generation: int = 0,
        comment: str = "",
        signature: bytes | None = None,
        signer: str = "",
    ) -> ops.ApprovalInfo:
        """
        Consent to what somebody else asked for; see `Approve`.

        *digest* is `consent.shown_sha256` of what the approver has seen.
        """
        operation = ops.Approve(
            approval_id=approval_id,
            digest=digest,
            generation=generation,
            comment=comment,
            signature=signature,
            signer=signer,
        )
        return self._hsm.execute(operation)

    def deny(
        self,
        approval_id: str,
        *,
        reason: str,
        digest: str = "",
        generation: int = 0,
        signature: bytes | None = None,
        signer: str = "",
    ) -> ops.ApprovalInfo:
        """Refuse what somebody else asked for; see `Deny`."""
        operation = ops.Deny(
            approval_id=approval_id,
            reason=reason,
            digest=digest,
            generation=generation,
            signature=signature,
            signer=signer,
        )
        return self._hsm.execute(operation)

    def withdraw(self, approval_id: str, *, reason: str = "") -> ops.ApprovalInfo:
        """Withdraw one's own approval of a request; see `Withdraw`."""
        return self._hsm.execute(ops.Withdraw(approval_id=approval_id, reason=reason))

    def cancel_approval(self, approval_id: str) -> ops.ApprovalInfo:
        """Give up a request of one's own; see `CancelApproval`."""
        return self._hsm.execute(ops.CancelApproval(approval_id=approval_id))


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


class RetentionMethods(SessionBase):
    """What a caller may do about retention."""

    def extend_retention(
        self,
        key_id: str,
        version: int,
        until: datetime,
        *,
        idempotency_key: str | None = None,
    ) -> KeyInfo:
        """Keep the material of a version until an instant; see `ExtendRetention`."""
        operation = ops.ExtendRetention(key_id=key_id, version=version, until=until)
        return self._hsm.execute(operation, idempotency_key=idempotency_key)

    def hold(
        self, key_id: str, reason: str, *, idempotency_key: str | None = None
    ) -> KeyInfo:
        """Put a legal hold on a key; see `HoldKey`."""
        operation = ops.HoldKey(key_id=key_id, reason=reason)
        return self._hsm.execute(operation, idempotency_key=idempotency_key)

    def release(
        self, key_id: str, reason: str, *, idempotency_key: str | None = None
    ) -> KeyInfo:
        """End the hold on a key; see `ReleaseKey`."""
        operation = ops.ReleaseKey(key_id=key_id, reason=reason)
        return self._hsm.execute(operation, idempotency_key=idempotency_key)

    def retention(self) -> ops.RetentionReport:
        """Return how retention stands; see `RetentionStatus`."""
        return self._hsm.execute(ops.RetentionStatus())

    def begin_ledger(self, reason: str) -> ops.LedgerBegun:
        """Let a new ledger take the place of a lost one; see `BeginLedger`."""
        return self._hsm.execute(ops.BeginLedger(reason=reason))
