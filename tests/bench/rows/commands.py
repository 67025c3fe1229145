# SPDX-License-Identifier: MIT
"""What a command of the client costs from its start to its end: P15."""

from __future__ import annotations

import resource
import subprocess

from tests.bench.figures import Finding, at_most
from tests.bench.harness import interleave, repeated
from tests.bench.rig import Rig
from tests.e2e.processes import program
from tests.e2e.site import Site


def starts(rig: Rig) -> list[Finding]:
    """Return what ``--help`` and ``list`` cost the client's process."""
    site = Site(rig.place("commands"))
    with site.start("--log-level", "warning", "--isolation", "inline") as server:

        def run(*words: str) -> None:
            subprocess.run(
                [*program("hsm-cli"), *site.cli_words(server.port, *words)],
                env=site.environment(),
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


def _children_seconds() -> float:
    """Return the processor time of all programs that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
