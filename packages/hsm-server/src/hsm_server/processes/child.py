# SPDX-License-Identifier: MIT
"""Start and failure of a child process."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import sys
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NoReturn

import msgspec

from hsm_core.errors import HSMError
from hsm_server.config.exit_codes import ExitCode, exit_code_of
from hsm_server.config.plan import Plan, read_plan
from hsm_server.ipc.control import (
    LONGEST_TEXT,
    Alarm,
    Beat,
    Control,
    Failed,
    FromSupervisor,
    Reloaded,
    receive_begin,
)
from hsm_server.observability.logs import (
    Logger,
    capture_foreign,
    loop_exception_handler,
    make_logger,
)
from hsm_server.observability.metrics import Metrics, share_metrics
from hsm_server.observability.places import location
from hsm_server.system.hardening import (
    die_with_parent,
    forbid_dumps,
    forbid_new_privileges,
    return_large_buffers,
)
from hsm_server.system.standard_streams import plug_standard_streams, sentence

_OUT_OF_MEMORY: Final = 12
_PULSE_SECONDS: Final = 0.5
_STUCK_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True)
class Child:
    """
    The current child process.

    Attributes:
        control: Socket to the supervisor.
        slot: Its name, such as ``vault``.
        descriptors: Descriptors of the first message.
    """

    control: socket.socket
    slot: str
    plan: Plan
    descriptors: Sequence[int]
    logger: Logger
    metrics: Metrics

    def fail(self, error: Exception) -> NoReturn:
        """Report a failed start to the supervisor, and exit."""
        if isinstance(error, HSMError):
            message, status = sentence(error), exit_code_of(error)
        else:
            place = location(error.__traceback__)
            message = f"unexpected {type(error).__name__} at {place}."
            status = ExitCode.FAILED
        self.control.setblocking(True)
        self.control.send(
            msgspec.msgpack.encode(Failed(message[:LONGEST_TEXT], status))
        )
        os._exit(status)


def begin_child() -> Child:
    """
    Wait for the first message, and give up what this process does not need.

    The signals that end a server stay blocked: they are the supervisor's to heed.
    """
    plug_standard_streams()
    os.umask(0o077)
    control = socket.socket(fileno=int(sys.argv[1]))
    die_with_parent(int(sys.argv[2]))
    forbid_dumps()
    forbid_new_privileges()
    return_large_buffers()
    begin, descriptors = receive_begin(control)
    plan = read_plan(begin.plan)
    share_metrics(Path(begin.metrics), begin.slot)
    settings = plan.settings
    logger = make_logger(
        sys.stderr, settings.log_level, settings.log_format, process=begin.slot
    )
    capture_foreign(logger)
    return Child(control, begin.slot, plan, descriptors, logger, Metrics(plan.started))


class ChildProgram(ABC):
    """
    Program of a child process: executes the supervisor's messages to the last one.

    Args:
        child: The current child process.
    """

    def __init__(self, child: Child) -> None:
        self._child = child

    def _connect(self) -> None:
        """Take messages from now on, on the running event loop."""
        asyncio.get_running_loop().set_exception_handler(
            loop_exception_handler(self._child.logger, end_without_memory)
        )
        self._stopping = asyncio.Event()
        self._control: Control[FromSupervisor] = Control(
            self._child.control, FromSupervisor, self._take, self._stopping.set
        )

    def _take(self, message: FromSupervisor, descriptors: list[int]) -> None:
        if not self._heed(message, descriptors):
            self._stopping.set()
        for descriptor in descriptors:
            os.close(descriptor)

    @abstractmethod
    def _heed(self, message: FromSupervisor, descriptors: list[int]) -> bool:
        """
        Execute a message; return whether to go on.

        Args:
            message: Any message; one that is not expected ends the process.

            descriptors: Its descriptors; those left in the list are closed.
        """

    def _tell_reloaded(self, problem: str) -> None:
        self._control.send(Reloaded(problem[:LONGEST_TEXT]))

    def _tell_alarm(self, source: str, is_active: bool) -> None:
        self._control.send(Alarm(source, is_active))


class Pulse:
    """
    Liveness signal: tells the supervisor twice a second that this process lives.

    It runs in its own thread, which a busy event loop cannot delay, and goes on while
    the process closes. It stops when the loop has been blocked for a minute.

    Args:
        control: Socket to the supervisor; `start` is called on the running event loop.

        stuck_seconds: Maximum time that the loop may be blocked.
    """

    def __init__(
        self, control: socket.socket, stuck_seconds: float = _STUCK_SECONDS
    ) -> None:
        self._control = control
        self._stuck_seconds = stuck_seconds

    def start(self) -> None:
        """Begin to tell."""
        self._turn()
        threading.Thread(target=self._tell, name="hsm-pulse", daemon=True).start()

    def _turn(self) -> None:
        self._turned_at = time.monotonic()
        asyncio.get_running_loop().call_later(_PULSE_SECONDS, self._turn)

    def _tell(self) -> None:
        beat = msgspec.msgpack.encode(Beat())
        while self._control.fileno() >= 0:
            time.sleep(_PULSE_SECONDS)
            if time.monotonic() - self._turned_at < self._stuck_seconds:
                # A supervisor that does not read has other troubles.
                with contextlib.suppress(OSError):
                    self._control.send(beat, socket.MSG_DONTWAIT)


def end_without_memory(error: BaseException | None) -> None:
    """Exit on memory exhaustion, for a restart in a known state."""
    if error is not None and _is_out_of_memory(error):
        os._exit(_OUT_OF_MEMORY)


def _is_out_of_memory(error: BaseException) -> bool:
    match error:
        case MemoryError() | OSError(errno=errno.ENOMEM):
            return True
        case RuntimeError():
            # Python has no better word for a thread that there is no room for.
            return "can't start new thread" in str(error)
        case _:
            return False
