# SPDX-License-Identifier: MIT
"""Base of key schedulers: bounded steps under a system principal."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from hsm_core._internal.background.walk import KeyWalk
from hsm_core._internal.handlers.base import HandlerDependencies
from hsm_core._internal.keyring.documents import KeyDocument
from hsm_core._internal.policy.system_callers import SystemPrincipal, system_caller
from hsm_core.errors import HSMError, UnavailableError
from hsm_core.model import KeyState
from hsm_core.operations import Operation
from hsm_core.protocols import Request

Execute: TypeAlias = Callable[[Request], Any]
"""Executes one request; `Pipeline.execute`."""

_LOOKS: Final = 64
_CHANGES: Final = 4
_PAUSE_SECONDS: Final = 0.1


class KeyScheduler(ABC):
    """
    Looks at keys, and changes those that are due.

    Args:
        services: Keys, their uses, and how much time has passed.

        execute: Executes its requests.
    """

    def __init__(
        self,
        services: HandlerDependencies,
        execute: Execute,
        *,
        state: KeyState,
        principal: SystemPrincipal,
    ) -> None:
        self._services = services
        self._execute = execute
        self._caller = system_caller(principal)
        self._walk = KeyWalk(services.inventory, state)
        self._begin_round()

    def step(self) -> float | None:
        """
        Look at 64 keys more, and change 4 of them at most.

        Returns:
            After how many seconds to go on with this round; None if it is at its end,
            or if the HSM is locked.

        Raises:
            UnavailableError: Store or audit log is unavailable; the next step restarts
                the round.
        """
        if self._services.inventory.lock.reason:
            return None
        try:
            return self._step()
        except UnavailableError:
            self._walk.restart()
            self._begin_round()
            raise

    def _step(self) -> float | None:
        self._note_leaps()
        changes = 0
        for _ in range(_LOOKS):
            document = self._walk.next()
            if document is None:
                self._end_round()
                self._begin_round()
                return None
            changes += self._consider(document)
            if changes >= _CHANGES:
                break
        return _PAUSE_SECONDS

    def run(self) -> None:
        """Do steps to the end of a round; for tests and simulations."""
        while self.step() is not None:
            pass

    @abstractmethod
    def _consider(self, document: KeyDocument, /) -> bool:
        """Judge one key; return whether it was tried to change it."""

    @abstractmethod
    def _begin_round(self) -> None:
        """Reset the counters."""

    @abstractmethod
    def _end_round(self) -> None:
        """Show what was found."""

    def _try(self, operation: Operation[Any]) -> bool:
        """
        Ask for an operation; return whether it was done.

        What is refused, such as for lack of an approval, is tried again next time; the
        trail says why.

        Raises:
            UnavailableError: Nothing can be done now.
        """
        try:
            self._execute(Request(self._caller, operation))
        except UnavailableError:
            raise
        except HSMError:
            return False
        return True

    def _note_leaps(self) -> None:
        leaps = self._services.leaps.look()
        left_out = sum(leap.end - leap.begin for leap in leaps)
        self._services.schedule.left_out_seconds = left_out // 1_000_000
