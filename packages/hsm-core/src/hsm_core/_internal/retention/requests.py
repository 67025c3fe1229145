# SPDX-License-Identifier: MIT
"""Retention's approval requests, remembered across restarts."""

from __future__ import annotations

import hashlib
from typing import Any, Final, Protocol

import msgspec

from hsm_core._internal.retention.state import StateFile
from hsm_core.errors import ApprovalNotFoundError
from hsm_core.model import Approval, Caller
from hsm_core.operations import Operation

_MOST: Final = 2000
_PACKED: Final = msgspec.msgpack.Encoder(order="deterministic")


class PurgeRequests(Protocol):
    """Opens approval requests for operations of the HSM itself."""

    def request(
        self,
        caller: Caller,
        operation: Operation[Any],
        *,
        minimum_seconds: int = 0,
    ) -> Approval | None:
        """
        Return the open approval request for an operation; open one if there is none.

        Args:
            caller: The only caller that may execute it.

            operation: As it will be sent; bound by all of its fields.

            minimum_seconds: It may be granted and used for at least so long.

        Returns:
            None if the policy asks for none.

        Raises:
            HSMError: It can't be asked now.
        """
        ...

    def find(self, caller: Caller, operation: Operation[Any]) -> Approval | None:
        """
        Return the open approval of a caller for an operation, or None.

        Raises:
            HSMError: It can't be told now.
        """
        ...

    def state_of(self, approval_id: str) -> Approval:
        """
        Return an approval as it is now.

        Raises:
            ApprovalNotFoundError: There is none of this id.
            ApprovalTamperedError: What lies there is not what was written.
            HSMError: It can't be told now.
        """
        ...


class NoPurgeRequests:
    """Stand-in without an approval workflow: nothing is ever granted."""

    def request(
        self,
        caller: Caller,
        operation: Operation[Any],
        *,
        minimum_seconds: int = 0,
    ) -> Approval | None:
        """Return None."""
        return None

    def find(self, caller: Caller, operation: Operation[Any]) -> Approval | None:
        """Return None."""
        return None

    def state_of(self, approval_id: str) -> Approval:
        """
        Refuse.

        Raises:
            ApprovalNotFoundError: Always.
        """
        raise ApprovalNotFoundError


class RememberedRequests:
    """
    Approval requests, with the newest one for each operation.

    Args:
        desk: Opens and finds open requests.

        file: Stores the newest request of each operation.
    """

    def __init__(self, desk: PurgeRequests, file: StateFile) -> None:
        self._desk = desk
        self._file = file

    def newest(self, caller: Caller, operation: Operation[Any]) -> Approval | None:
        """
        Return the newest approval of an operation, whatever its state.

        Raises:
            HSMError: It can't be told now, or can't be believed.
        """
        known = self._file.state.asked.get(_name(operation))
        if known is not None:
            try:
                return self._desk.state_of(known)
            except ApprovalNotFoundError:
                pass  # It was removed long after its end.
        found = self._desk.find(caller, operation)
        if found is not None:
            self._remember(operation, found)
        return found

    def ask(
        self, caller: Caller, operation: Operation[Any], minimum_seconds: int
    ) -> Approval | None:
        """
        Open a request; None if the policy requires no approval.

        Raises:
            HSMError: It can't be asked now.
        """
        found = self._desk.request(caller, operation, minimum_seconds=minimum_seconds)
        if found is not None:
            self._remember(operation, found)
        return found

    def forget(self, operation: Operation[Any]) -> None:
        """Forget the request of a completed operation."""
        asked = dict(self._file.state.asked)
        if asked.pop(_name(operation), None) is not None:
            self._put(asked)

    def _remember(self, operation: Operation[Any], approval: Approval) -> None:
        asked, name = dict(self._file.state.asked), _name(operation)
        if asked.get(name) == approval.approval_id:
            return
        asked.pop(name, None)
        asked[name] = approval.approval_id
        while len(asked) > _MOST:
            del asked[next(iter(asked))]
        self._put(asked)

    def _put(self, asked: dict[str, str]) -> None:
        self._file.put(msgspec.structs.replace(self._file.state, asked=asked))


def granted_at(approval: Approval) -> int:
    """Return the time of the last valid grant; 0 if there is none."""
    return max((d.at for d in approval.decisions if d.counts), default=0)


def _name(operation: Operation[Any]) -> str:
    return hashlib.sha256(_PACKED.encode(operation)).hexdigest()[:32]
