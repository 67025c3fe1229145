# SPDX-License-Identifier: MIT
"""Destroys keys whose waiting time is over."""

from __future__ import annotations

from hsm_core._internal.background.scheduler import Execute, KeyScheduler
from hsm_core._internal.handlers.base import HandlerDependencies
from hsm_core._internal.handlers.internal_operations import CompleteDestruction
from hsm_core._internal.keyring.documents import KeyDocument
from hsm_core._internal.policy.system_callers import SystemPrincipal
from hsm_core.model import KeyState


class DestructionScheduler(KeyScheduler):
    """
    Completes what `DestroyKey` has begun, when the time has really passed.

    A key whose time is over by the wall clock only, because that leapt, is held until
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
        leaps = self._services.leaps
        if leaps.now() < document.destroy_at:
            return False
        asked_at = document.destroy_asked_at
        if leaps.age(asked_at) < document.destroy_at - asked_at:
            self._due += 1
            self._held += 1
            return False
        done = self._try(CompleteDestruction(key_id=document.key_id))
        self._waiting -= done
        self._due += not done
        return True

    def _end_round(self) -> None:
        shown = self._services.schedule
        shown.destructions, shown.destructions_due = self._waiting, self._due
        shown.held = self._held
