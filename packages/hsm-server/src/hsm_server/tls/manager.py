# SPDX-License-Identifier: MIT
"""
TLS manager: tasks that change the TLS state.

Files, staples and ACME certificates each have a task. All change one active state, so
none undoes the change of another.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import Protocol

from hsm_core.errors import HSMError
from hsm_server.config.tls import TLSSettings
from hsm_server.observability.logs import Logger
from hsm_server.observability.metrics import Metrics
from hsm_server.observability.places import location
from hsm_server.system.background import keep_running
from hsm_server.system.standard_streams import sentence
from hsm_server.tls.contexts import try_state
from hsm_server.tls.ocsp.stapler import Stapler
from hsm_server.tls.renewal import RenewalTask
from hsm_server.tls.sources import ExpiryWatch, FileSource, file_sources
from hsm_server.tls.state import ActiveState, Alarms, TLSState


class Task(Protocol):
    """
    Task for one part of the TLS state.

    It reports failures to its alarms and continues; an exception that leaves `run` is
    unexpected.
    """

    async def run(self, active: ActiveState, /) -> None:
        """
        Change the active state when needed, until cancelled.

        It is cancelled at the end, and begun again after an unexpected error. The
        first thing may be to change the active state, which is in force.
        """

    async def reload(self, active: ActiveState, /) -> None:
        """
        Check for changes at once; called while `run` runs.

        The caller waits at most 5 seconds, so network operations are only started.

        Raises:
            HSMError: The new state can't be used; the former one stays in force.
        """


class TLSManager:
    """
    Runner of the tasks.

    Args:
        first: The initial state.

        tasks: The tasks, in the order of reloads.

        publish: Distributes a state to all front ends; see `ActiveState`.

        logger: Logs unexpected exceptions.
    """

    def __init__(
        self,
        first: TLSState,
        tasks: Sequence[Task],
        publish: Callable[[TLSState], Awaitable[None]],
        logger: Logger,
    ) -> None:
        self._tasks = tasks
        self._publish = publish
        self._logger = logger
        self._board = ActiveState(first, self._try_and_publish)

    async def begin(self) -> None:
        """
        Put the first state in force.

        Raises:
            HSMError: It can't be used.
        """
        await self._try_and_publish(self._board.state)

    async def run(self) -> None:
        """Run all tasks until this is cancelled."""
        async with asyncio.TaskGroup() as group:
            for task in self._tasks:
                run, note = partial(task.run, self._board), partial(self._note, task)
                group.create_task(keep_running(run, note))

    async def reload(self) -> str:
        """Run all tasks at once; return the faults, or an empty text."""
        problems = []
        for task in self._tasks:
            try:
                await task.reload(self._board)
            except HSMError as error:
                problems.append(sentence(error))
            except Exception as error:
                self._note(task, error)
                problems.append(f"unexpected {type(error).__name__}.")
        return " ".join(problems)

    async def _try_and_publish(self, state: TLSState) -> None:
        await asyncio.to_thread(try_state, state)
        await self._publish(state)

    def _note(self, task: Task, error: Exception) -> None:
        self._logger.error(
            "unexpected",
            task=type(task).__name__,
            error=type(error).__name__,
            place=location(error.__traceback__),
        )


def tasks_for(
    settings: TLSSettings,
    alarms: Alarms,
    metrics: Metrics,
    logger: Logger,
    http: socket.socket | None = None,
) -> list[Task]:
    """
    Return the tasks of the TLS manager, in the order in which they reload.

    Args:
        settings: TLS settings.

        alarms: Receive faults.

        metrics: Count and show.

        logger: Logs events that are no alarm.

        http: Listening socket for a CA's challenges, where there is one.
    """
    files = file_sources(settings, alarms)
    return [
        *_issuing(settings, alarms, metrics, logger, http),
        *files,
        *_renewing(settings, files, alarms, logger),
        Stapler(
            timedelta(seconds=settings.ocsp_refresh_interval_seconds),
            settings.ocsp_responses,
            alarms,
            metrics,
            logger,
        ),
        ExpiryWatch(alarms, logger),
    ]


def _renewing(
    settings: TLSSettings,
    files: Sequence[FileSource],
    alarms: Alarms,
    logger: Logger,
) -> list[Task]:
    if settings.ca_key is None:
        return []
    # The first source is that of the certificate.
    path = settings.pairs[0].cert
    return [RenewalTask(path, settings.ca_key, files[0].reload, alarms, logger)]


def _issuing(
    settings: TLSSettings,
    alarms: Alarms,
    metrics: Metrics,
    logger: Logger,
    http: socket.socket | None,
) -> list[Task]:
    if settings.acme is None:
        return []
    # It has much with it that nothing else needs.
    from hsm_server.tls.acme.task import ACMETask

    return [ACMETask(settings.acme, alarms, metrics, logger, http)]
