# SPDX-License-Identifier: MIT
"""Asking for approvals ahead of time, for those of the HSM's doings that need them."""

from __future__ import annotations

from typing import Any

from hsm_core._internal.approvals.workflow import ApprovalWorkflow
from hsm_core._internal.pipeline.authorisation import Admission
from hsm_core._internal.pipeline.drafts import RequestContext
from hsm_core.model import Approval, Caller
from hsm_core.operations import Operation


class ApprovalDesk:
    """
    Requests approvals, and tells how they are. Safe for many threads.

    What was granted is then executed by the pipeline, as for anybody: it finds the
    approval, and reserves and consumes it.

    Args:
        admission: Resolves and authorises.

        consents: All approvals.
    """

    def __init__(self, admission: Admission, consents: ApprovalWorkflow) -> None:
        self._admission = admission
        self._consents = consents

    def request(
        self,
        caller: Caller,
        operation: Operation[Any],
        *,
        minimum_seconds: int = 0,
    ) -> Approval | None:
        """
        Return the open approval for an operation, asked for now if there is none.

        Args:
            caller: Who will execute it.

            operation: As it will be sent.

            minimum_seconds: A new one lasts for at least so long, up to 366 days,
                though the policy gives it less.

        Returns:
            None if the policy asks for none.

        Raises:
            AccessDeniedError: The policy does not allow the operation.
            KeyNotFoundError: There is no such key.
            HSMError: Store or trail can't be used.
        """
        attempt = self._admitted(caller, operation)
        asked = self._admission.asked(attempt)
        if asked is None:
            return None
        return self._consents.ask(asked, minimum_seconds=minimum_seconds)

    def find(self, caller: Caller, operation: Operation[Any]) -> Approval | None:
        """
        Return the open approval of a caller for an operation, or None.

        Raises:
            HSMError: As `request`.
        """
        asked = self._admission.asked(self._admitted(caller, operation))
        if asked is None:
            return None
        digest = self._consents.digest(asked)
        return self._consents.find(caller.principal, digest)

    def state_of(self, approval_id: str) -> Approval:
        """
        Return an approval as it is now.

        Raises:
            ApprovalNotFoundError: There is none of this id.
            ApprovalTamperedError: What lies there is not what was written.
            HSMError: It can't be read.
        """
        return self._consents.state_of(approval_id)

    def cancel(self, caller: Caller, approval_id: str) -> Approval:
        """
        Close an approval that its requester wants no more.

        Raises:
            AccessDeniedError: Another person asked for it.
            ConflictError: It is in use, or came to another end.
            HSMError: Store or trail can't be used.
        """
        return self._consents.cancel(caller, approval_id)

    def _admitted(self, caller: Caller, operation: Operation[Any]) -> RequestContext:
        attempt = self._admission.attempt(caller, operation)
        self._admission.admit(attempt, self._admission.handler(operation))
        return attempt
