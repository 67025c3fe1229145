# SPDX-License-Identifier: MIT
"""Servers under load: a client process, and the processor time of the servers."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.e2e.family import PROGRAMS, children, members
from tests.e2e.site import Site

_CLIENT: Final = Path(__file__).with_name("busy_client.py")


def cpu_seconds(*pids: int) -> float:
    """Return how long the threads of processes were on a processor."""
    threads = (t for pid in pids for t in Path(f"/proc/{pid}/task").glob("*/schedstat"))
    return sum(int(thread.read_text().split()[0]) for thread in threads) / 1e9


def memory(*pids: int) -> float:
    """Return the proportional memory of processes, in bytes."""
    found = 0
    for pid in pids:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        (line,) = (line for line in lines if line.startswith("Pss:"))
        found += 1024 * int(line.split()[1])
    return found


def kinds_of(server: int) -> dict[int, str]:
    """Return the kind of each process of one of our servers, by its ID."""
    found = {server: "supervisor" if children(server) else "server"}
    for kind in PROGRAMS:
        found |= dict.fromkeys(members(server, kind), kind)
    return found


@dataclass(frozen=True, kw_only=True)
class Job:
    """Requests of a busy client: where to, with what, and over how many connections."""

    port: int
    bundle: str
    certificate: str
    private_key: str
    token: str
    path: str
    body: Mapping[str, str]
    connections: int


def job(
    site: Site,
    *,
    port: int,
    token: str,
    path: str,
    body: Mapping[str, str],
    connections: int,
) -> Job:
    """Return a job for a server with the certificates of a site."""
    return Job(
        port=port,
        bundle=str(site.authority.bundle),
        certificate=str(site.client_pair.certificate),
        private_key=str(site.client_pair.key),
        token=token,
        path=path,
        body=body,
        connections=connections,
    )


class BusyClient:
    """
    Client process with open connections, which sends requests when it is told to.

    Args:
        job: What it sends.

    Raises:
        RuntimeError: Its first requests failed.
    """

    def __init__(self, job: Job) -> None:
        self._process = subprocess.Popen(
            [sys.executable, _CLIENT],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        if self._ask(json.dumps(asdict(job))) != "ready":
            self._process.kill()
            raise RuntimeError(f"The client got no answers from {job.path}.")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.communicate()

    def work(self, requests: int) -> float:
        """
        Send so many requests, and return the seconds until the last answer.

        Raises:
            RuntimeError: One was refused.
        """
        seconds = self._ask(str(requests))
        if not seconds:
            raise RuntimeError("A request of the client was refused.")
        return float(seconds)

    def _ask(self, line: str) -> str:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        stdin.write(f"{line}\n")
        stdin.flush()
        return stdout.readline().strip()
