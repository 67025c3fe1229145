# SPDX-License-Identifier: MIT
"""What retention needs of those who keep approvals."""

from __future__ import annotations

from typing import Any, Protocol

from hsm_core.model import Approval, Caller
from hsm_core.operations import Operation

__all__ = ["NoApprovals", "PurgeApprovals", "granted_at"]


class PurgeApprovals(Protocol):
    """Asks people for their consent to operations of the HSM itself."""

    def find(self, caller: Caller, operation: Operation[Any], /) -> Approval | None:
        """
        Return the newest approval of an operation, whatever its state.

        Raises:
            HSMError: It can't be told now, or can't be believed.
        """
        ...

    def request(
        self,
        caller: Caller,
        operation: Operation[Any],
        /,
        *,
        minimum_seconds: int = 0,
    ) -> Approval | None:
        """
        Ask for what the policy demands, or return what is asked already.

        Args:
            caller: Who asks, and alone may use it.

            operation: What is to be done; bound by all of its fields.

            minimum_seconds: It may be granted and used for at least so long.

        Returns:
            None where the policy demands no approval of this.

        Raises:
            HSMError: It can't be asked now.
        """
        ...


class NoApprovals:
    """Where no approval can be asked for: nothing is ever granted."""

    def find(self, caller: Caller, operation: Operation[Any], /) -> Approval | None:
        """Return None."""
        return None

    def request(
        self,
        caller: Caller,
        operation: Operation[Any],
        /,
        *,
        minimum_seconds: int = 0,
    ) -> Approval | None:
        """Return None."""
        return None


def granted_at(approval: Approval) -> int:
    """Return when the last consent was given, microseconds since 1970; 0 if none."""
    return max((d.at for d in approval.decisions if d.granted), default=0)
