# SPDX-License-Identifier: MIT
"""Reload of all child processes, complete with the last response."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from hsm_server.ipc.control import Reload, Reloaded
from hsm_server.observability.logs import Logger
from hsm_server.processes.child_process import ChildProcess
from hsm_server.processes.service_manager import ServiceManager

_LONGEST_SECONDS: Final = 5.0


class Reloading:
    """
    Reload of certificates, private keys, token keys and policies.

    A reload requested during another one, or before the server serves, runs afterwards,
    because files may have changed since.

    Args:
        children: The child processes; a restarted one reads everything at its start.

        manager: Service manager; notified of start and end.

        logger: Logs the response of each child.
    """

    def __init__(
        self, children: Sequence[ChildProcess], manager: ServiceManager, logger: Logger
    ) -> None:
        self._children = children
        self._manager = manager
        self._logger = logger
        self._waiting: set[ChildProcess] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._is_allowed = self._is_wanted = False

    def allow(self) -> None:
        """Begin what was asked for up to now."""
        self._is_allowed = True
        if self._is_wanted:
            self.ask()

    def forbid(self) -> None:
        """Begin nothing more, and end nothing more."""
        self._is_allowed = False
        self._cancel()

    def ask(self) -> None:
        """Reload, now or later."""
        self._is_wanted = True
        if not self._is_allowed or self._timer is not None:
            return
        self._is_wanted = False
        self._manager.reloading()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(_LONGEST_SECONDS, self._end)
        self._waiting = {child for child in self._children if child.is_running}
        for child in self._waiting:
            child.tell(Reload())
        self._end_if_answered()

    def note(self, child: ChildProcess, answer: Reloaded) -> None:
        """Take an answer."""
        if child not in self._waiting:
            return
        if answer.error:
            self._logger.error("reload failed", reason=answer.error, child=child.slot)
        else:
            self._logger.info("reloaded", child=child.slot)
        self.forget(child)

    def forget(self, child: ChildProcess) -> None:
        """Expect no answer of a child, whose end it may be."""
        self._waiting.discard(child)
        self._end_if_answered()

    def _end_if_answered(self) -> None:
        if self._timer is not None and not self._waiting:
            self._end()

    def _end(self) -> None:
        """Be ready again, also where a child does not answer."""
        for child in self._waiting:
            self._logger.error("reload not answered", child=child.slot)
        self._cancel()
        self._manager.ready()
        if self._is_wanted:
            self.ask()

    def _cancel(self) -> None:
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
