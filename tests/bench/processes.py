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


class Worker:
    """
    A Python process that does what a line says, and answers with a line.

    Args:
        words: What the interpreter is given.

        environment: Its environment, if not that of this process.
    """

    def __init__(
        self, *words: str | Path, environment: Mapping[str, str] | None = None
    ) -> None:
        self._process = subprocess.Popen(
            [sys.executable, *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._process.communicate()

    def begin(self, line: object) -> None:
        """Let it do what a line says."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def answer(self) -> str:
        """
        Wait until it is done, and return what it says.

        Raises:
            RuntimeError: It has ended, or says nothing.
        """
        assert self._process.stdout is not None
        found = self._process.stdout.readline().strip()
        if not found:
            raise RuntimeError("A process that is measured could not work.")
        return found

    def work(self, line: object) -> float:
        """Let it do what a line says, and return the seconds that it took."""
        self.begin(line)
        return float(self.answer())


class BusyClient(Worker):
    """
    Client process with open connections, which sends as many requests as it is told.

    Args:
        job: What it sends.

    Raises:
        RuntimeError: Its first requests failed.
    """

    def __init__(self, job: Job) -> None:
        super().__init__(_CLIENT)
        self.begin(json.dumps(asdict(job)))
        self.answer()
