# SPDX-License-Identifier: MIT
"""What the processes of a server use while a client in another one keeps them busy."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.e2e.family import PROGRAMS, children, members
from tests.e2e.processes import ServerProcess
from tests.e2e.site import Site

_CLIENT: Final = Path(__file__).with_name("isolation_client.py")
_CONNECTIONS: Final = 16


@dataclass(frozen=True)
class Load:
    """
    What many signatures took.

    Attributes:
        used: Seconds of processor per request, by the kind of process.
        rate: Requests per second.
    """

    used: Mapping[str, float]
    rate: float


def cpu_seconds(pid: int) -> float:
    """Return how long a process's threads were on a processor."""
    threads = Path(f"/proc/{pid}/task").glob("*/schedstat")
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


def sign_over_https(folder: Path, flags: tuple[str, ...], requests: int) -> Load:
    """
    Start a server, have P-256 signatures made over 16 connections, and stop it.

    Raises:
        RuntimeError: It refused to make a key, or did not end in order.
    """
    site = Site(folder)
    with site.start(*flags, "--log-level", "warning") as server:
        with site.client(server.port, "ada", "operator") as client:
            body = {"algorithm": "EC-P256", "name": "signer"}
            if client.request("POST", "/api/v1/keys", body).status != 201:
                raise RuntimeError("The server made no key.")
        load = _watched(site, server, requests)
        if server.stop():
            raise RuntimeError("The server did not end in order.")
    return load


def _watched(site: Site, server: ServerProcess, requests: int) -> Load:
    with _client(site, server.port, requests) as busy:
        assert busy.stdin is not None
        assert busy.stdout is not None
        if busy.stdout.readline() != "ready\n":
            raise RuntimeError("The client could not sign.")
        processes = _processes(server)
        before = {pid: cpu_seconds(pid) for pid in processes}
        busy.stdin.write("\n")
        busy.stdin.flush()
        done = json.loads(busy.stdout.readline())
        used: dict[str, float] = defaultdict(float)
        for pid, name in processes.items():
            used[name] += (cpu_seconds(pid) - before[pid]) / done["requests"]
    return Load(used, done["requests"] / done["seconds"])


def _processes(server: ServerProcess) -> dict[int, str]:
    others = children(server.pid)
    found = {server.pid: "supervisor" if others else "server"}
    for kind in PROGRAMS:
        found |= dict.fromkeys(members(server.pid, kind), kind)
    return found


@contextmanager
def _client(site: Site, port: int, requests: int) -> Iterator[subprocess.Popen[str]]:
    token = site.folder / "token"
    token.write_text(site.token("ada", "operator"))
    identity = (site.client_pair.certificate, site.client_pair.key)
    words = [str(port), str(site.authority.bundle), *map(str, identity), str(token)]
    with subprocess.Popen(
        [sys.executable, _CLIENT, *words, "signer", str(_CONNECTIONS), str(requests)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as client:
        yield client
