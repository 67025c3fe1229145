# SPDX-License-Identifier: MIT
"""Key schedulers: automatic rotation and scheduled destruction, in bounded steps."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import Any, Final, TypeAlias

from hsm_core import operations as ops
from hsm_core._internal.handlers.base import HandlerDependencies
from hsm_core._internal.handlers.destruction import CompleteDestruction
from hsm_core._internal.keyring.documents import KeyDocument, RotationDocument
from hsm_core._internal.keyring.repository import KeyRepository
from hsm_core._internal.keyring.versions import staged_version
from hsm_core._internal.lib.concurrency import BackgroundWorker
from hsm_core._internal.policy.facts import SystemPrincipal, system_caller
from hsm_core.errors import (
    HSMError,
    KeyNotFoundError,
    KeyTamperedError,
    UnavailableError,
)
from hsm_core.model import KeyFilter, KeyId, KeyState
from hsm_core.operations import Operation
from hsm_core.protocols import IndexQuery, Request
from hsm_core.settings import Settings

_PAGE: Final = 64

Execute: TypeAlias = Callable[[Request], Any]
"""Executes one request; `Pipeline.execute`."""

_LOOKS: Final = 64
_CHANGES: Final = 4
_PAUSE_SECONDS: Final = 0.1
_DAY: Final = 24 * 3600 * 1_000_000
_FIRST_SECONDS: Final = 10.0
"""Delay of the first run after the start, in seconds."""


class KeyWalk:
    """
    Iterator over the keys with a given state of the current version, in rounds.

    It follows the index and checks each entry against the document. The scrubber finds
    keys that the index omits. Keys that fail their integrity check are skipped.

    Args:
        inventory: The keys.

        state: State of the current version.
    """

    def __init__(self, inventory: KeyRepository, state: KeyState) -> None:
        self._inventory = inventory
        self._filter = KeyFilter(state=state)
        self._after: tuple[int, str] | None = None
        self._ahead: deque[tuple[int, KeyId]] = deque()

    def next(self) -> KeyDocument | None:
        """
        Return the next key, or None at the end of a round.

        Raises:
            StoreUnavailableError: The store can't be read now.
        """
        while True:
            if not self._ahead:
                query = IndexQuery(filter=self._filter, limit=_PAGE, after=self._after)
                self._ahead.extend(self._inventory.store.find(query).keys)
            if not self._ahead:
                self._after = None
                return None
            place = self._ahead[0]
            document = self._read(place[1])
            self._ahead.popleft()
            self._after = place
            if document is not None:
                return document

    def restart(self) -> None:
        """Start a new round."""
        self._ahead.clear()
        self._after = None

    def _read(self, key_id: KeyId) -> KeyDocument | None:
        try:
            document = self._inventory.document(key_id)
        except (KeyNotFoundError, KeyTamperedError):
            return None
        wanted = self._filter.state
        return document if document.current_version.state is wanted else None


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
        self._note_jumps()
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

    def _note_jumps(self) -> None:
        jumps = self._services.clock_guard.look()
        left_out = sum(jump.end - jump.begin for jump in jumps)
        self._services.schedule.note(left_out_seconds=left_out // 1_000_000)


class RotationScheduler(KeyScheduler):
    """
    Rotates active keys by the rule that `SetRotation` gave them.

    One with a staged version is left alone: that waits for somebody to activate it. It
    counts as due.
    """

    def __init__(self, services: HandlerDependencies, execute: Execute) -> None:
        super().__init__(
            services,
            execute,
            state=KeyState.ACTIVE,
            principal=SystemPrincipal.ROTATION,
        )

    def _begin_round(self) -> None:
        self._rotating = self._due = 0

    def _consider(self, document: KeyDocument, /) -> bool:
        if document.rotation is None:
            return False
        self._rotating += 1
        if not self._is_due(document, document.rotation):
            return False
        if staged_version(document) is not None:
            self._due += 1
            return False
        self._due += not self._try(ops.RotateKey(key_id=document.key_id))
        return True

    def _is_due(self, document: KeyDocument, rule: RotationDocument) -> bool:
        current = document.current_version
        if rule.max_age_days:
            age = self._services.clock_guard.age(current.active_since)
            if age >= rule.max_age_days * _DAY:
                return True
        if rule.max_uses:
            use, _ = self._services.uses.info(document, current)
            return use is not None and use.uses >= rule.max_uses
        return False

    def _end_round(self) -> None:
        self._services.schedule.note(rotating=self._rotating, rotations_due=self._due)


class DestructionScheduler(KeyScheduler):
    """
    Completes what `DestroyKey` has begun, when the time has really passed.

    A key whose time is over by the wall clock only, after a clock jump, is held until
    the rest has passed, or until somebody sends `DestroyKey` again.
    """

    def __init__(self, services: HandlerDependencies, execute: Execute) -> None:
        super().__init__(
            services,
            execute,
            state=KeyState.PURGE_SCHEDULED,
            principal=SystemPrincipal.DESTRUCTION,
        )

    def _begin_round(self) -> None:
        self._waiting = self._due = self._held = 0

    def _consider(self, document: KeyDocument, /) -> bool:
        if not document.destroy_at:
            return False
        self._waiting += 1
        guard = self._services.clock_guard
        if guard.now() < document.destroy_at:
            return False
        asked_at = document.destroy_asked_at
        if guard.age(asked_at) < document.destroy_at - asked_at:
            self._due += 1
            self._held += 1
            return False
        done = self._try(CompleteDestruction(key_id=document.key_id))
        self._waiting -= done
        self._due += not done
        return True

    def _end_round(self) -> None:
        self._services.schedule.note(
            destructions=self._waiting, destructions_due=self._due, held=self._held
        )


class Schedulers:
    """
    Begins at once; to be stopped before store and trail are closed.

    Args:
        settings: How often they look.

        services: Dependencies of the handlers.

        execute: Executes their requests.

        worker: Does their steps; one of its own by default.

    Attributes:
        rotation: Rotates keys.
        destruction: Destroys them after their waiting time.
    """

    def __init__(
        self,
        settings: Settings,
        services: HandlerDependencies,
        execute: Execute,
        worker: BackgroundWorker | None = None,
    ) -> None:
        self.rotation = RotationScheduler(services, execute)
        self.destruction = DestructionScheduler(services, execute)
        # A long key generation must keep no store from healing.
        self._worker = worker or BackgroundWorker()
        every, guard = self._worker.every, services.job_guard
        seconds = settings.rotation_interval_seconds
        every(seconds, guard("rotation", self.rotation.step), first=_FIRST_SECONDS)
        seconds, step = settings.destruction_interval_seconds, self.destruction.step
        every(seconds, guard("destruction", step), first=_FIRST_SECONDS)
        self._worker.start()

    def stop(self, timeout_seconds: float) -> None:
        """Begin nothing any more, and wait for what runs."""
        self._worker.stop(timeout_seconds)
