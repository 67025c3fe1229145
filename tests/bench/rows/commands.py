# SPDX-License-Identifier: MIT
"""Starts of client, server and library, and what an idle server holds: P15."""

from __future__ import annotations

import resource
import statistics
import subprocess
import time

from tests.bench.figures import Finding, at_most
from tests.bench.filled_stores import make, start
from tests.bench.harness import interleave, repeated
from tests.bench.peers.native import AbsentError
from tests.bench.peers.openbao import OpenBao
from tests.bench.processes import kinds_of, memory
from tests.bench.rig import Rig
from tests.e2e.https import Client, NoAnswerError
from tests.e2e.processes import program
from tests.e2e.site import Site
from tests.support import free_port

_TURNS = 3
_IDLE_SECONDS = 3
_POLL_SECONDS = 0.02


def starts(rig: Rig) -> list[Finding]:
    """Return what commands of the client, a server and a library cost to start."""
    return [*_client(rig), *_servers(rig), _library(rig)]


def _client(rig: Rig) -> list[Finding]:
    site = Site(rig.place("commands"))
    with site.start("--log-level", "warning", "--isolation", "inline") as server:

        def run(*words: str) -> None:
            subprocess.run(
                [*program("hsm-cli"), *site.cli_words(server.port, *words)],
                env=_environment(site),
                stdout=subprocess.DEVNULL,
                check=True,
            )

        took = interleave(
            {
                "help": repeated(lambda: run("--help")),
                "list": repeated(lambda: run("list")),
            },
            clock=_children_seconds,
        )
        server.stop()
    return [
        at_most(60, "`hsm-cli --help`", 1e3 * took["help"], "ms"),
        at_most(90, "`hsm-cli list`", 1e3 * took["list"], "ms", "HTTPS, no keys"),
    ]


def _servers(rig: Rig) -> list[Finding]:
    """Return when a server answers, and the memory of its processes when idle."""
    rival, rival_memory = "no OpenBao", ""
    try:
        with OpenBao(Site(rig.place("idle-openbao"))) as bao:
            time.sleep(_IDLE_SECONDS)
            rival = f"OpenBao {bao.answered_after:.2f} s, sealed"
            rival_memory = f", OpenBao {memory(bao.pid) / 1e6:.0f} MB"
    except AbsentError as error:
        rival += f": {error}"
    site = Site(rig.place("idle"))
    turns = [_answered_after(site) for _ in range(_TURNS)]
    seconds, held, numbers = zip(*turns, strict=True)
    return [
        at_most(
            1.5,
            "`hsm-server` with an empty store, until `/healthz` answers",
            statistics.median(seconds),
            "s",
            f"wall time; {rival}",
        ),
        at_most(
            110,
            "idle server, proportional memory",
            statistics.median(held) / 1e6,
            "MB",
            f"{max(numbers)} processes{rival_memory}",
        ),
    ]


def _answered_after(site: Site) -> tuple[float, float, int]:
    """Return seconds until a new server answers, its bytes and its processes."""
    port = free_port()
    began = time.perf_counter()
    flags = ("--bind", f"127.0.0.1:{port}", "--log-level", "warning")
    with site.start(*flags, environment=_environment(site), wait=False) as server:
        while not _is_healthy(site, port):
            time.sleep(_POLL_SECONDS)
        after = time.perf_counter() - began
        time.sleep(_IDLE_SECONDS)
        pids = kinds_of(server.pid)
        held = memory(*pids)
        server.stop()
    return after, held, len(pids)


def _is_healthy(site: Site, port: int) -> bool:
    try:
        with Client(port, site.context) as client:
            return client.request("GET", "/healthz").status == 200
    except NoAnswerError:
        return False


def _library(rig: Rig) -> Finding:
    folder = rig.once("opened", lambda path: make(path, 1))
    used = statistics.median(start(folder, "stop").used for _ in range(_TURNS))
    return at_most(100, "`hsm_core.open`", 1e3 * used, "ms", "three keys in SQLite")


def _environment(site: Site) -> dict[str, str]:
    """Return an environment in which Python keeps compiled modules, as usual."""
    return {
        name: value
        for name, value in site.environment().items()
        if name != "PYTHONDONTWRITEBYTECODE"
    }


def _children_seconds() -> float:
    """Return the processor time of all programs that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
