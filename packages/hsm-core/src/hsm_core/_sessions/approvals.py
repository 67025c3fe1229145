# SPDX-License-Identifier: MIT
"""Methods about the consent of other people."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Self

from hsm_core import operations as ops
from hsm_core._sessions.base import Accompanied, SessionBase
from hsm_core.model import ApprovalState


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
