# SPDX-License-Identifier: MIT
"""Rotates keys whose current version is old enough, or was used often enough."""

from __future__ import annotations

from typing import Final

from hsm_core import operations as ops
from hsm_core._internal.background.scheduler import Execute, KeyScheduler
from hsm_core._internal.handlers.base import HandlerDependencies
from hsm_core._internal.keyring.documents import KeyDocument, RotationDocument
from hsm_core._internal.keyring.versions import staged_version
from hsm_core._internal.policy.system_callers import SystemPrincipal
from hsm_core.model import KeyState

_DAY: Final = 24 * 3600 * 1_000_000


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
            age = self._services.leaps.age(current.active_since)
            if age >= rule.max_age_days * _DAY:
                return True
        if rule.max_uses:
            use, _ = self._services.uses.info(document, current)
            return use is not None and use.uses >= rule.max_uses
        return False

    def _end_round(self) -> None:
        shown = self._services.schedule
        shown.rotating, shown.rotations_due = self._rotating, self._due
