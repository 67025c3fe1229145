# SPDX-License-Identifier: MIT
"""A supervisor in the process of a test, over children of the test's making."""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

from hsm_server.config.plan import Plan
from hsm_server.config.settings import LogLevel, ServerSettings
from hsm_server.processes.child_process import Roles
from hsm_server.processes.runtime_folder import RuntimeFolder
from hsm_server.processes.spawn import HELD_SIGNALS
from hsm_server.processes.supervisor import Supervisor
from hsm_server.system.secret_handover import SecretBox, fill_box


class ErrorOutput:
    """
    Standard error of this process and its children, for reading while they write.

    What pytest captures is emptied when it is read, and a line that a child writes at
    that moment is lost.

    Args:
        path: File for it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def lines(self) -> list[str]:
        """All that was written so far."""
        return self._path.read_text("utf-8").splitlines()

    @contextlib.contextmanager
    def kept(self) -> Iterator[None]:
        """Keep it in the file for the duration of a ``with`` block."""
        sys.stderr.flush()
        before = os.dup(2)
        try:
            with self._path.open("a", encoding="utf-8", buffering=1) as file:
                os.dup2(file.fileno(), 2)
                with contextlib.redirect_stderr(file):
                    yield
        finally:
            os.dup2(before, 2)
            os.close(before)


@contextlib.contextmanager
def kept_signals() -> Iterator[None]:
    """Keep what a supervisor does to signals from the other tests."""
    handlers = {number: signal.getsignal(number) for number in HELD_SIGNALS}
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def supervise(
    folder: Path, roles: Roles, beside: Coroutine[Any, Any, None], workers: int = 1
) -> int:
    """Run a supervisor over such children, beside something else; return its status."""
    settings = ServerSettings(
        log_level=LogLevel.ERROR, drain_timeout_seconds=0.5, workers=workers
    )
    plan = Plan(settings=settings, url="https://here", runtime_folder=folder)
    box = fill_box(SecretBox(values={}, files={}, environment={}))

    async def run(shared: RuntimeFolder, bound: socket.socket) -> int:
        watching = asyncio.create_task(beside)
        try:
            return await Supervisor(plan, box, [bound], shared, roles).run()
        finally:
            watching.cancel()

    try:
        with (
            kept_signals(),
            socket.create_server(("127.0.0.1", 0)) as bound,
            RuntimeFolder(plan) as shared,
        ):
            return asyncio.run(run(shared, bound))
    finally:
        os.close(box)
