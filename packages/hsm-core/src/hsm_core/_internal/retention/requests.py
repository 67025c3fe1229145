# SPDX-License-Identifier: MIT
"""What retention asks people, remembered from one start to the next."""

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


class PurgeDesk(Protocol):
    """Asks people for their consent to operations of the HSM itself."""

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
            caller: Who will execute it, and alone may.

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


class NoDesk:
    """Where nobody can be asked: nothing is ever granted."""

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


class Remembered:
    """
    A desk, and which approval was the last for each operation.

    Args:
        desk: Knows only what is open.

        file: Where it is remembered what was asked.
    """

    def __init__(self, desk: PurgeDesk, file: StateFile) -> None:
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
        Ask; None if the policy asks for no approval of this.

        Raises:
            HSMError: It can't be asked now.
        """
        found = self._desk.request(caller, operation, minimum_seconds=minimum_seconds)
        if found is not None:
            self._remember(operation, found)
        return found

    def forget(self, operation: Operation[Any]) -> None:
        """Forget what was asked about something that is done."""
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
    """Return when the last grant that counts was given; 0 if there is none."""
    return max((d.at for d in approval.decisions if d.counts), default=0)


def _name(operation: Operation[Any]) -> str:
    return hashlib.sha256(_PACKED.encode(operation)).hexdigest()[:32]
