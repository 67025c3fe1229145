# SPDX-License-Identifier: MIT
"""One child of the supervisor: started, listened to, started again, ended."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hsm_core.settings import SCRUBBING_ALLOCATOR
from hsm_server.exit_codes import ExitCode
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
from hsm_server.logs import Logger
from hsm_server.plan import Plan, pack_plan
from hsm_server.processes.launch import python_command, scrubbed
from hsm_server.secret_box import pour
from hsm_server.telemetry import Metrics

__all__ = ["Offspring", "Parts", "Roles"]

_BEAT_SECONDS: Final = 0.5
_HUNG_SECONDS: Final = 5.0
_FIRST_DELAY: Final = 0.05
_LONGEST_DELAY: Final = 30.0
_STABLE_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Roles:
    """What the children run, as words for Python; tests put others in their place."""

    vault: Sequence[str] = ("-m", "hsm_server.bootstrap.vault")
    front_end: Sequence[str] = ("-m", "hsm_server.processes.front_end")


@dataclass(frozen=True, slots=True)
class Parts:
    """
    What all children have in common.

    Attributes:
        folder: Where the shared metrics are.
        on_change: Is told that a child is ready, or has ended; it says whether one
            that has ended is to be started again.
        on_message: Is given what else a child says.
    """

    plan: Plan
    logger: Logger
    metrics: Metrics
    folder: Path
    on_change: Callable[[Offspring], bool]
    on_message: Callable[[Offspring, FromChild], None]


class Offspring:
    """
    A child that is kept running.

    Args:
        slot: Its name; those of front ends end in a number.

        program: What it runs, as words for Python.

        parts: What it has in common with others.

        secrets: Descriptor of the box that it is given, or None.

        sockets: Listening sockets that it is given.

    Attributes:
        failure: Why it can't begin, and the exit status to end with; None if it can.
        is_serving: Whether it accepts connections.
    """

    def __init__(
        self,
        slot: str,
        program: Sequence[str],
        parts: Parts,
        *,
        secrets: int | None = None,
        sockets: Sequence[socket.socket] = (),
    ) -> None:
        self.slot = slot
        self.failure: tuple[str, int] | None = None
        self.is_ready = self.is_serving = False
        self._program = program
        self._parts = parts
        self._secrets = secrets
        self._sockets = sockets
        plan = parts.plan
        self._user = plan.vault_user if slot == "vault" else plan.front_end_user
        self._process: subprocess.Popen[bytes] | None = None
        self._control: Control[FromChild] | None = None
        self._ended = asyncio.Event()
        self._is_stopping = self._was_told_to_serve = False
        self._quick_ends = 0
        self._began_at = self._heard_at = 0.0
        self._timers: list[asyncio.TimerHandle] = []

    @property
    def uid(self) -> int:
        """User id of the process."""
        return self._user.uid if self._user is not None else os.geteuid()

    @property
    def is_well(self) -> bool:
        """Whether it has begun and was heard lately."""
        return self.is_ready and self._now() - self._heard_at < _HUNG_SECONDS

    def start(self) -> None:
        """Start the process."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._began_at = self._heard_at = self._now()
        self._ended.clear()
        with theirs:
            try:
                self._process = self._spawn(theirs.fileno())
            except OSError as error:
                ours.close()
                self._parts.logger.error(
                    "no process", child=self.slot, error=type(error).__name__
                )
                self._end_with(None)
                return
        self._control = Control(ours, FromChild, self._take, lambda: None)
        self._watch(self._process.pid)
        self._begin()
        self._later(_BEAT_SECONDS, self._beat)

    def tell(self, message: FromSupervisor, *descriptors: int) -> None:
        """Send a message, if there is somebody to read it."""
        if self._control is not None:
            self._control.send(message, *descriptors)

    def tell_once(self, message: Serve) -> None:
        """Let a front end serve; it is told that once."""
        if not self._was_told_to_serve:
            self._was_told_to_serve = True
            self.tell(message)

    async def stop(self, seconds: float, deadline: float) -> None:
        """
        End the process, and wait for that.

        Args:
            seconds: How long it may finish what is in flight.

            deadline: Instant of the monotonic clock at which it is killed.
        """
        self._is_stopping = True
        if self._process is None or self._ended.is_set():
            return
        self.failure = None
        self.tell(Stop(seconds))
        try:
            async with asyncio.timeout(max(0.0, deadline - self._now())):
                await self._ended.wait()
        except TimeoutError:
            self._parts.logger.warning("killed", child=self.slot)
            self._process.kill()
            await self._ended.wait()

    async def abandon(self) -> None:
        """End the process at once; there is nothing to be finished."""
        self._is_stopping = True
        if self._process is not None and not self._ended.is_set():
            self._process.kill()
            await self._ended.wait()

    def _spawn(self, control: int) -> subprocess.Popen[bytes]:
        user, holds_keys = self._user, self._secrets is not None
        command = python_command(*self._program, allocator=holds_keys)
        return subprocess.Popen(  # noqa: S603 (our own interpreter and module)
            [*command, str(control), str(os.getpid())],
            env=scrubbed(os.environ) | dict(SCRUBBING_ALLOCATOR if holds_keys else {}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            pass_fds=(control,),
            user=user.uid if user is not None else None,
            group=user.gid if user is not None else None,
            extra_groups=[] if user is not None else None,
        )

    def _begin(self) -> None:
        descriptors = [listening.fileno() for listening in self._sockets]
        begin = Begin(pack_plan(self._parts.plan), self.slot, str(self._parts.folder))
        if self._secrets is None:
            self.tell(begin, *descriptors)
            return
        reader = pour(self._secrets)
        try:
            self.tell(begin, reader)
        finally:
            os.close(reader)

    def _take(self, message: FromChild, descriptors: list[int]) -> None:
        for descriptor in descriptors:
            os.close(descriptor)
        self._heard_at = self._now()
        match message:
            case Ready():
                self.is_ready = True
                self._parts.on_change(self)
            case Failed():
                self.failure = (message.message, message.status)
            case Beat():
                pass
            case _:
                self._parts.on_message(self, message)

    def _beat(self) -> None:
        """Ask whether the process is there; end one that has not answered for long."""
        self._later(_BEAT_SECONDS, self._beat)
        if not self.is_ready or self._process is None:
            self._heard_at = self._now()
            return
        if self._now() - self._heard_at > _HUNG_SECONDS:
            self._parts.logger.error("hangs, and is killed", child=self.slot)
            self._process.kill()
        self.tell(Beat())

    def _watch(self, pid: int) -> None:
        descriptor = os.pidfd_open(pid)
        loop = asyncio.get_running_loop()

        def ended() -> None:
            loop.remove_reader(descriptor)
            os.close(descriptor)
            assert self._process is not None  # noqa: S101 (for the type checker)
            self._end_with(self._process.wait())

        loop.add_reader(descriptor, ended)

    def _end_with(self, status: int | None) -> None:
        """Note the end, and start the process again where it is still wanted."""
        if self._control is not None:
            # What it said last may still be unread.
            self._control.drain()
            self._control.close()
            self._control = None
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        self.is_ready = self.is_serving = self._was_told_to_serve = False
        self._ended.set()
        if self._is_stopping:
            return
        if self.failure is None:
            reason = f"The process {self.slot} ended ({_told(status)}) by itself."
            self.failure = (reason, ExitCode.FAILED)
        if self._parts.on_change(self):
            self._parts.logger.error(
                "ended", child=self.slot, status=_told(status), reason=self.failure[0]
            )
            self._start_again()

    def _start_again(self) -> None:
        self.failure = None
        self._parts.metrics.count_restart(self.slot.rstrip("0123456789"))
        if self._now() - self._began_at > _STABLE_SECONDS:
            self._quick_ends = 0
        delay = min(_LONGEST_DELAY, _FIRST_DELAY * 2**self._quick_ends)
        self._quick_ends += 1
        self._later(delay, self._restart)

    def _restart(self) -> None:
        if not self._is_stopping:
            self.start()

    def _later(self, seconds: float, work: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        self._timers = [t for t in self._timers if t.when() > loop.time()]
        self._timers.append(loop.call_later(seconds, work))

    def _now(self) -> float:
        return asyncio.get_running_loop().time()


def _told(status: int | None) -> str:
    if status is None:
        return "never started"
    if status < 0:
        return signal.Signals(-status).name
    return f"status {status}"
