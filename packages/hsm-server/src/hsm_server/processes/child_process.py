# SPDX-License-Identifier: MIT
"""Child process of the supervisor: start, messages, restart with back-off, end."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hsm_server.config.exit_codes import ExitCode
from hsm_server.config.plan import Plan, pack_plan
from hsm_server.ipc.control import (
    Beat,
    Begin,
    Control,
    Failed,
    FromChild,
    FromSupervisor,
    Ready,
    Serve,
    Stop,
)
from hsm_server.observability.logs import Logger
from hsm_server.observability.metrics import Metrics
from hsm_server.processes.spawn import VAULT, Spawned, spawn
from hsm_server.system.secret_handover import pour

_FIRST_SECONDS: Final = 0.05
_LONGEST_SECONDS: Final = 10.0
_STABLE_SECONDS: Final = 1.0


class Backoff:
    """Exponential back-off up to 10 s; resets after a longer run."""

    def __init__(self) -> None:
        self._seconds = _FIRST_SECONDS

    def after(self, ran_seconds: float) -> float:
        """
        Return the delay in seconds.

        Args:
            ran_seconds: Run time of the process after its start.
        """
        if ran_seconds >= _STABLE_SECONDS:
            self._seconds = _FIRST_SECONDS
        wait = self._seconds
        self._seconds = min(_LONGEST_SECONDS, wait * 2)
        return wait


_BEAT_SECONDS: Final = 0.5
_MOST_UNANSWERED: Final = 10


@dataclass(frozen=True, slots=True)
class Roles:
    """Programs of the child processes, as arguments of Python; tests replace them."""

    vault: Sequence[str] = VAULT
    front_end: Sequence[str] = ("-m", "hsm_server.processes.front_end")
    tls_manager: Sequence[str] = ("-m", "hsm_server.processes.tls_manager")


@dataclass(frozen=True, slots=True)
class ChildContext:
    """
    Common settings of all child processes.

    Attributes:
        folder: Folder of the shared metrics.
        on_change: Called when a child is ready or has ended; returns whether to restart
            it.
        on_message: Called with other messages and their descriptors; it owns those that
            it removes from the list.
    """

    plan: Plan
    logger: Logger
    metrics: Metrics
    folder: Path
    on_change: Callable[[ChildProcess], bool]
    on_message: Callable[[ChildProcess, FromChild, list[int]], None]


class ChildProcess:
    """
    Child process that is restarted when it ends.

    Args:
        slot: Its name; those of front ends end in a number.

        program: Its program, as arguments of Python.

        context: Common settings.

        secrets: Descriptor of its secrets, or None.

        sockets: Its listening sockets.

        newest: Returns one more descriptor for its start, if there is one.

        spawned: The process, if it was started already.

    Attributes:
        failure: Reason and exit status of a failed start, or None.
        is_serving: Whether it accepts connections.
    """

    def __init__(
        self,
        slot: str,
        program: Sequence[str],
        context: ChildContext,
        *,
        secrets: int | None = None,
        sockets: Sequence[socket.socket] = (),
        newest: Callable[[], int | None] = lambda: None,
        spawned: Spawned | None = None,
    ) -> None:
        self.slot = slot
        self.failure: tuple[str, int] | None = None
        self.is_ready = self.is_serving = False
        self._program = program
        self._context = context
        self._secrets = secrets
        self._sockets = sockets
        self._newest = newest
        self._started_before = spawned
        plan = context.plan
        self._user = plan.vault_user if slot == "vault" else plan.front_end_user
        self._spawned: Spawned | None = None
        self._control: Control[FromChild] | None = None
        self._ended = asyncio.Event()
        self._is_stopping = self._was_told_to_serve = False
        self._backoff = Backoff()
        self._ready_at = 0.0
        self._unanswered = 0
        self._timers: list[asyncio.TimerHandle] = []

    @property
    def uid(self) -> int:
        """User id of the process."""
        return self._user.uid if self._user is not None else os.geteuid()

    @property
    def is_running(self) -> bool:
        """Whether the process runs."""
        return self._control is not None

    @property
    def is_well(self) -> bool:
        """Whether there is no known fault; a start in progress is none."""
        return self._unanswered < _MOST_UNANSWERED

    def start(self) -> None:
        """Start the process."""
        self._ended.clear()
        self._unanswered = 0
        try:
            self._begin()
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            said = f"Cannot start the process {self.slot} ({reason})."
            self.failure = (said, ExitCode.FAILED)
            self._note_end("never started")

    def tell(self, message: FromSupervisor, *descriptors: int) -> None:
        """Send a message, if the process runs."""
        if self._control is not None:
            self._control.send(message, *descriptors)

    def tell_once(self, message: Serve) -> None:
        """Let a front end serve; sent only once."""
        if not self._was_told_to_serve:
            self._was_told_to_serve = True
            self.tell(message)

    async def stop(self, seconds: float, deadline: float) -> None:
        """
        End the process, and wait for that.

        Args:
            seconds: Time for requests in flight.

            deadline: Instant of the monotonic clock at which it is killed.
        """
        self._is_stopping = True
        if not self.is_running:
            return
        self.failure = None
        self.tell(Stop(seconds))
        try:
            async with asyncio.timeout(max(0.0, deadline - self._now())):
                await self._ended.wait()
        except TimeoutError:
            self._context.logger.warning("killed", child=self.slot)
            await self.abandon()

    def replace(self, reason: str) -> None:
        """End the process at once; it is started again where it is still wanted."""
        self.failure = (reason, ExitCode.FAILED)
        self._kill()

    async def abandon(self) -> None:
        """End the process at once; there is nothing to be finished."""
        self._is_stopping = True
        if self.is_running:
            self._kill()
            await self._ended.wait()

    def _begin(self) -> None:
        """
        Start the process, and tell it what it is.

        Raises:
            OSError: That can't be done; there is no process then.
        """
        begin = Begin(
            pack_plan(self._context.plan), self.slot, str(self._context.folder)
        )
        descriptors = [listening.fileno() for listening in self._sockets]
        if (newest := self._newest()) is not None:
            descriptors.append(newest)
        secrets = [pour(self._secrets)] if self._secrets is not None else []
        try:
            spawned = self._spawned = self._started_before or spawn(
                self._program, self._user, holds_keys=self._secrets is not None
            )
            self._started_before = None
            self._control = Control(
                spawned.control, FromChild, self._take, lambda: None
            )
            self._control.send(begin, *descriptors, *secrets)
        finally:
            for descriptor in secrets:
                os.close(descriptor)
        asyncio.get_running_loop().add_reader(spawned.descriptor, self._on_end, spawned)
        self._later(_BEAT_SECONDS, self._beat)

    def _take(self, message: FromChild, descriptors: list[int]) -> None:
        self._unanswered = 0
        match message:
            case Ready():
                self._note_ready()
            case Failed():
                # What fails while it ends only follows from it.
                self.failure = self.failure or (message.message, message.status)
            case Beat(is_linked=True):
                pass
            case _:
                self._context.on_message(self, message, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)

    def _note_ready(self) -> None:
        if not self.is_ready:
            self.is_ready = True
            self._ready_at = self._now()
            self._context.on_change(self)

    def _beat(self) -> None:
        """
        Check liveness; kill a process that missed several checks.

        Questions are counted and not seconds, for it may be this process that was
        stopped. One that has not begun can't answer, and may open its files for long.
        """
        self._later(_BEAT_SECONDS, self._beat)
        if not self.is_ready and not self._is_stopped():
            return
        self._unanswered += 1
        if self._unanswered == _MOST_UNANSWERED:
            reason = f"The process {self.slot} did not respond and was killed."
            self.failure = (reason, ExitCode.FAILED)
        if self._unanswered >= _MOST_UNANSWERED:
            self._kill()
        self.tell(Beat())

    def _is_stopped(self) -> bool:
        """Return whether a signal holds the process."""
        if self._spawned is None:
            return False
        how = os.WSTOPPED | os.WNOHANG | os.WNOWAIT
        try:
            found = os.waitid(os.P_PIDFD, self._spawned.descriptor, how)
        except ChildProcessError:
            return False
        return found is not None and found.si_code == os.CLD_STOPPED

    def _kill(self) -> None:
        if self._spawned is not None:
            self._spawned.process.kill()

    def _on_end(self, spawned: Spawned) -> None:
        asyncio.get_running_loop().remove_reader(spawned.descriptor)
        os.close(spawned.descriptor)
        self._spawned = None
        self._note_end(_told(spawned.process.wait()))

    def _note_end(self, status: str) -> None:
        """Handle the end of the process; restart it if needed."""
        if self._control is not None:
            # What it said last may still be unread.
            self._control.drain()
            self._control.close()
            self._control = None
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        ran_seconds = self._now() - self._ready_at if self.is_ready else 0.0
        self.is_ready = self.is_serving = self._was_told_to_serve = False
        self._unanswered = 0
        self._ended.set()
        if self._is_stopping:
            return
        if self.failure is None:
            reason = f"The process {self.slot} exited unexpectedly ({status})."
            self.failure = (reason, ExitCode.FAILED)
        if self._context.on_change(self):
            self._context.logger.error(
                "ended", child=self.slot, status=status, reason=self.failure[0]
            )
            self.failure = None
            self._context.metrics.count_restart(self.slot.rstrip("0123456789"))
            self._later(self._backoff.after(ran_seconds), self._restart)

    def _restart(self) -> None:
        if not self._is_stopping:
            self.start()

    def _later(self, seconds: float, work: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        self._timers = [t for t in self._timers if t.when() > loop.time()]
        self._timers.append(loop.call_later(seconds, work))

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _told(status: int) -> str:
    if status < 0:
        try:
            return signal.Signals(-status).name
        except ValueError:
            return f"signal {-status}"
    return f"status {status}"
