# SPDX-License-Identifier: MIT
"""Witness interface: observes every change of an approval."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Protocol

from hsm_core.model import Approval
from hsm_core.protocols import AuditDraft


class Witness(Protocol):
    """Called under the lock of the approval."""

    def vouch(self, approval: Approval, stored: bytes, /) -> None:
        """
        Compare what lies in the store, authentic, with what was written.

        Raises:
            ApprovalTamperedError: It is another state of the approval.
        """
        ...

    def tell(self, approval_id: str, reason: str, /) -> None:
        """Handle a stored approval that differs from the last written state."""
        ...

    def change(
        self,
        before: Approval | None,
        after: Approval,
        record: bytes,
        step: AuditDraft | None,
        /,
    ) -> AbstractContextManager[None]:
        """
        Return a context within which the change is committed.

        Args:
            before: None for a new one.

            after: As it becomes.

            record: Its stored form.

            step: Who does what, for the trail; None for what time does.

        Raises:
            AuditUnavailableError: On entry, and nothing is to be committed.
            OutcomeUnknownError: At the end, where it was committed and not recorded.
        """
        ...

    def removal(self, approval_ids: Sequence[str], /) -> AbstractContextManager[None]:
        """Return a context within which approvals that ended are removed."""
        ...


class Unwitnessed:
    """Null witness, for stores without an audit log."""

    def vouch(self, approval: Approval, stored: bytes, /) -> None:
        """Accept any stored state."""

    def tell(self, approval_id: str, reason: str, /) -> None:
        """Do nothing."""

    def change(
        self,
        before: Approval | None,
        after: Approval,
        record: bytes,
        step: AuditDraft | None,
        /,
    ) -> AbstractContextManager[None]:
        """Do nothing."""
        return nullcontext()

    def removal(self, approval_ids: Sequence[str], /) -> AbstractContextManager[None]:
        """Do nothing."""
        return nullcontext()
