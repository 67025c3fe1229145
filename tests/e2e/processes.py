# SPDX-License-Identifier: MIT
"""Servers as processes of their own: started, waited for, stopped, killed."""

import contextlib
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

__all__ = ["ServerExitError", "ServerProcess", "children_of", "program"]

_READY: Final = re.compile(
    rb"^hsm-server: listening on https://[^ ]*:([0-9]+)\s*$", re.MULTILINE
)
_READY_SECONDS: Final = 60.0
_POLL_SECONDS: Final = 0.01


def program(name: str) -> list[str]:
    """Return how to run an installed command of this Python environment."""
    return [str(Path(sys.executable).with_name(name))]


def children_of(pid: int) -> list[int]:
    """Return the children of a process, whichever thread has started them."""
    found: list[int] = []
    for thread in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found += map(int, (thread / "children").read_text().split())
    return found


def _command_of(pid: int) -> bytes:
    """Return the command line of a process; nothing if it has ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


class ServerExitError(Exception):
    """The server ended before it listened; *status* is its exit status."""

    def __init__(self, status: int, output: str) -> None:
        super().__init__(f"The server ended with status {status}: {output}")
        self.status = status
        self.output = output


class ServerProcess:
    """
    A running server; at the end of a ``with`` block it is killed if it still runs.

    Args:
        command: Program and arguments.

        environment: All of its environment.

        log: File that takes what it prints.

        pass_fds: File descriptors that it inherits.

    Attributes:
        ready_seconds: How long it took from start to ready line.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self._log = log
        self.command = tuple(command)
        self.port = 0
        self.ready_seconds = 0.0
        self._started = time.monotonic()
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                command,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=pass_fds,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.is_running:
            self.kill()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.poll() is None

    @property
    def output(self) -> str:
        """All it printed so far, on both streams."""
        return self._log.read_text(errors="replace")

    def processes(self) -> dict[str, int]:
        """
        Return the process ids of a server of several processes.

        They are those of ``supervisor``, ``vault``, ``front1`` and so on. Who has
        ended, or has not quite begun, is left out.
        """
        found = {"supervisor": self.pid}
        fronts = 0
        for pid in children_of(self.pid):
            command = _command_of(pid)
            if b"hsm_server.bootstrap.vault" in command:
                found["vault"] = pid
            elif b"hsm_server.processes.front_end" in command:
                fronts += 1
                found[f"front{fronts}"] = pid
        return found

    def wait_ready(self) -> None:
        """
        Wait until it says where it listens.

        Raises:
            ServerExitError: It ended instead.
            TimeoutError: It did neither in a minute; it was killed.
        """
        while not (found := _READY.search(self._log.read_bytes())):
            if not self.is_running:
                raise ServerExitError(self._process.returncode, self.output)
            if time.monotonic() - self._started > _READY_SECONDS:
                self.kill()
                raise TimeoutError(f"The server is not ready: {self.output}")
            time.sleep(_POLL_SECONDS)
        self.ready_seconds = time.monotonic() - self._started
        self.port = int(found[1])

    def kill(self) -> None:
        """End it as a power switch would: SIGKILL; its children end with it."""
        children = [os.pidfd_open(pid) for pid in children_of(self.pid)]
        self._process.kill()
        self._process.wait()
        for child in children:
            # A vault that is still ending has its store locked.
            select.select([child], [], [], _READY_SECONDS)
            os.close(child)

    def terminate(self) -> None:
        """Ask it to end, and do not wait."""
        self._process.send_signal(signal.SIGTERM)

    def wait(self, timeout_seconds: float = 30.0) -> int:
        """
        Wait for its end and return its exit status.

        Raises:
            TimeoutError: It did not end in time; it was killed.
        """
        try:
            return self._process.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            raise TimeoutError(f"The server did not end: {self.output}") from None

    def stop(self) -> int:
        """Ask it to end, wait, and return its exit status."""
        self.terminate()
        return self.wait()
