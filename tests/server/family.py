# SPDX-License-Identifier: MIT
"""The processes of a running server, looked at from outside."""

import http.client
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

from tests.server.process import Running
from tests.server.support import Answer


def wait_until(condition: Callable[[], object], seconds: float = 120.0) -> None:
    """Wait until something is so; fail the test if it does not become so."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "It took too long."
        time.sleep(0.02)


class Family:
    """Supervisor, vault, TLS manager and front ends of a server."""

    def __init__(self, server: Running) -> None:
        self.supervisor = server.process.pid

    @property
    def vault(self) -> int:
        """Process id of the vault, waiting for one."""
        return self._one_of("hsm_server.bootstrap.vault")

    @property
    def front_ends(self) -> list[int]:
        """Process ids of the front ends."""
        return self._of("hsm_server.processes.front_end")

    @property
    def tls_manager(self) -> int:
        """Process id of the TLS manager, waiting for one."""
        return self._one_of("hsm_server.processes.tls_manager")

    @property
    def everybody(self) -> list[int]:
        """All process ids."""
        return [self.supervisor, self.vault, self.tls_manager, *self.front_ends]

    def kill_vault(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to the vault."""
        os.kill(self.vault, number)

    def _one_of(self, module: str) -> int:
        found: list[int] = []

        def looks() -> bool:
            # What was there may be gone when it is looked at again.
            found[:] = self._of(module)
            return bool(found)

        wait_until(looks)
        return found[0]

    def _of(self, module: str) -> list[int]:
        children = Path(f"/proc/{self.supervisor}/task/{self.supervisor}/children")
        return [
            int(pid)
            for pid in children.read_text().split()
            if module.encode() in _read(int(pid), "cmdline").split(b"\0")
        ]


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return b""


def environment(pid: int) -> dict[str, str]:
    """Return the environment that a process was started with."""
    lines = _read(pid, "environ").decode().split("\0")
    return dict(line.split("=", 1) for line in lines if line)


def status(pid: int) -> dict[str, str]:
    """Return the fields of ``/proc/PID/status``."""
    lines = _read(pid, "status").decode().splitlines()
    return {
        name: value.strip() for name, _, value in (li.partition(":") for li in lines)
    }


def is_alive(pid: int) -> bool:
    """Return whether a process runs; one that nobody has waited for does not."""
    return not status(pid).get("State", "Z").startswith(("Z", "X"))


def descriptors(pid: int) -> dict[int, str]:
    """Return what each descriptor of a process leads to."""
    found = {}
    for path in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found[int(path.name)] = str(path.readlink())
        except FileNotFoundError:
            continue
    return found


def listening(port: int) -> set[str]:
    """Return the sockets that listen on a port, as descriptors lead to them."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {
        f"socket:[{row[9]}]"
        for row in rows
        if row[3] == "0A" and int(row[1].rpartition(":")[2], 16) == port
    }


def create(server: Running, name: str) -> None:
    """Make a key, or fail the test."""
    answer = server.send("POST", "/api/v1/keys", {"algorithm": "Ed25519", "name": name})
    assert 201 == answer.status, answer.body


def retrying(server: Running, path: str, seconds: float = 120.0) -> Answer:
    """Return the first answer to a GET that is not 503."""
    end = time.monotonic() + seconds
    while True:
        try:
            answer = server.send("GET", path)
            if answer.status != 503 or time.monotonic() > end:
                return answer
        except (OSError, http.client.HTTPException):
            assert time.monotonic() < end, "It is not served again."
        time.sleep(0.02)


def counter(server: Running, name: str) -> float:
    """Return the sum of a metric over all its labels."""
    text = server.send("GET", "/metrics").body.decode()
    values = re.findall(
        rf"^{re.escape(name)}(?:{{[^}}]*}})? (\S+)$", text, re.MULTILINE
    )
    return sum(map(float, values))
