# SPDX-License-Identifier: MIT
"""The schedulers of an open HSM, on a thread of their own."""

from __future__ import annotations

from typing import Final

from hsm_core._internal.background.destruction import DestructionScheduler
from hsm_core._internal.background.rotation import RotationScheduler
from hsm_core._internal.background.scheduler import Execute
from hsm_core._internal.handlers.base import HandlerDependencies
from hsm_core._internal.lib.worker import BackgroundWorker
from hsm_core.settings import Settings

_FIRST_SECONDS: Final = 10.0
"""Delay of the first run after the start, in seconds."""


class Schedulers:
    """
    Begins at once; to be stopped before store and trail are closed.

    Args:
        settings: How often they look.

        services: Dependencies of the handlers.

        execute: Executes their requests.

        caretaker: Does their steps; one of its own by default.

    Attributes:
        rotation: Rotates keys.
        destruction: Destroys them after their waiting time.
    """

    def __init__(
        self,
        settings: Settings,
        services: HandlerDependencies,
        execute: Execute,
        caretaker: BackgroundWorker | None = None,
    ) -> None:
        self.rotation = RotationScheduler(services, execute)
        self.destruction = DestructionScheduler(services, execute)
        # A long key generation must keep no store from healing.
        self._caretaker = caretaker or BackgroundWorker()
        every = self._caretaker.every
        seconds = settings.rotation_interval_seconds
        every(seconds, self.rotation.step, first=_FIRST_SECONDS)
        seconds = settings.destruction_interval_seconds
        every(seconds, self.destruction.step, first=_FIRST_SECONDS)
        self._caretaker.start()

    def stop(self, timeout_seconds: float) -> None:
        """Begin nothing any more, and wait for what runs."""
        self._caretaker.stop(timeout_seconds)
