# SPDX-License-Identifier: MIT
"""Servers as processes of their own: started, waited for, stopped, killed."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.e2e.family import children, is_gone, members

_READY: Final = re.compile(
    rb"^hsm-server: listening on https://[^ ]*:([0-9]+)\s*$", re.MULTILINE
)
_READY_SECONDS: Final = 300.0
_POLL_SECONDS: Final = 0.01
_GONE_SECONDS: Final = 30.0


def program(name: str) -> list[str]:
    """Return how to run an installed command of this Python environment."""
    return [str(Path(sys.executable).with_name(name))]


class ServerExitError(Exception):
    """The server ended before it listened; *status* is its exit status."""

    def __init__(self, status: int, output: str) -> None:
        super().__init__(f"The server ended with status {status}: {output}")
        self.status = status
        self.output = output


def _cpu_seconds(pid: int) -> float:
    """Return what a process has computed, and its children that have ended."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0
    # The name may hold spaces; utime, stime, cutime and cstime follow (proc(5)).
    ticks = text.rpartition(")")[2].split()[11:15]
    return sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


class ServerProcess:
    """
    A running server; at the end of a ``with`` block it is killed if it still runs.

    Args:
        command: Program and arguments.

        environment: All of its environment.

        log: File that takes what it prints.

        pass_fds: File descriptors that it inherits.

    Attributes:
        log: As given.
        ready_seconds: How long it took from start to ready line; the machine's load
            decides that, too.
        ready_cpu_seconds: What its processes had computed by then.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.log = log
        self.command = tuple(command)
        self.port = 0
        self.ready_seconds = self.ready_cpu_seconds = 0.0
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
        return self.log.read_text(errors="replace")

    def processes(self) -> dict[str, int]:
        """
        Return the process ids of a server of several processes.

        They are those of ``supervisor``, ``vault``, ``tls``, ``front1`` and so on. Who
        has ended, or has not quite begun, is left out.
        """
        found = {"supervisor": self.pid}
        for name, kind in {"vault": "vault", "tls": "tls_manager"}.items():
            for pid in members(self.pid, kind):
                found[name] = pid
        front_ends = enumerate(members(self.pid, "front end"), 1)
        return found | {f"front{number}": pid for number, pid in front_ends}

    def wait_ready(self) -> None:
        """
        Wait until it says where it listens.

        Raises:
            ServerExitError: It ended instead.
            TimeoutError: It did neither in five minutes; it was killed.
        """
        while not (found := _READY.search(self.log.read_bytes())):
            if not self.is_running:
                raise ServerExitError(self._process.returncode, self.output)
            if time.monotonic() - self._started > _READY_SECONDS:
                self.kill()
                raise TimeoutError(f"The server is not ready: {self.output}")
            time.sleep(_POLL_SECONDS)
        self.ready_seconds = time.monotonic() - self._started
        self.ready_cpu_seconds = sum(map(_cpu_seconds, self.processes().values()))
        self.port = int(found[1])

    def kill(self) -> None:
        """End it as a power switch would: SIGKILL, and all its children with it."""
        # Stopped, it starts no more of them.
        self._process.send_signal(signal.SIGSTOP)
        others = children(self.pid)
        self._process.kill()
        self._process.wait()
        until = time.monotonic() + _GONE_SECONDS
        while not all(map(is_gone, others)) and time.monotonic() < until:
            time.sleep(_POLL_SECONDS)

    def terminate(self) -> None:
        """Ask it to end, and do not wait."""
        self._process.send_signal(signal.SIGTERM)

    def wait(self, timeout_seconds: float = 90.0) -> int:
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
