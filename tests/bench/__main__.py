# SPDX-License-Identifier: MIT
"""
Measures the goals beside their rivals, prints the table, and writes the page.

``python -m tests.bench P4 P5`` measures some rows, and leaves the page as it is.
"""

from __future__ import annotations

import datetime
import os
import platform
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Final

from cryptography.hazmat.backends.openssl import backend

import hsm_server.tls.openssl  # noqa: F401 - before anything else loads OpenSSL
from tests.bench.figures import Absent, Finding
from tests.bench.goals import Goal, chosen
from tests.bench.report import page, summary, table
from tests.bench.rig import Rig
from tests.support import REPOSITORY

_MOST_LOAD: Final = 1.0
_FAILED: Final = "the row failed"
_PAGE: Final = REPOSITORY / "docs" / "reference" / "benchmarks.md"


def main(numbers: list[str]) -> int:
    """
    Measure the goals of these numbers, or all and write the page.

    Returns:
        Exit status: 1 if a row can't run, or if the machine is too busy for the page.
    """
    load = os.getloadavg()[0]
    if not numbers and load > _MOST_LOAD:
        sys.stderr.write(
            f"The load is {load:.1f}, and the page is written up to {_MOST_LOAD:.0f}. "
            "Stop other programs, or name rows to measure: P1 P4.\n"
        )
        return 1
    found: dict[Goal, list[Finding]] = {}
    with tempfile.TemporaryDirectory(prefix="ferrohsm-bench-") as folder:
        with Rig(Path(folder)) as rig:
            for goal in chosen(numbers):
                sys.stderr.write(f"{goal.number}: {goal.about}\n")
                found[goal] = _measured(goal, rig)
    sys.stdout.write(f"{table(found)}\n{summary(found)}\n")
    if not numbers:
        date = datetime.datetime.now(datetime.UTC).date().isoformat()
        _PAGE.write_text(page(found, date=date, machine=_machine(load)))
    return int(any(_has_failed(findings) for findings in found.values()))


def _measured(goal: Goal, rig: Rig) -> list[Finding]:
    """Measure one row; what it stumbles over is told, and does not cost the others."""
    try:
        return goal.measure(rig)
    except Exception as error:
        traceback.print_exc()
        return [Absent(what=goal.about, why=f"{_FAILED}: {error}")]


def _has_failed(findings: list[Finding]) -> bool:
    """Return whether a row stumbled, rather than found that something is missing."""
    return any(
        isinstance(finding, Absent) and finding.why.startswith(_FAILED)
        for finding in findings
    )


def _machine(load: float) -> str:
    """Return the class of the machine, and of what runs on it; no name, no path."""
    library = backend.openssl_version_text().rsplit(" ", 3)[0]
    return (
        f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}; "
        f"load at the beginning {load:.1f}; "
        f"Python {platform.python_version()}; cryptography with {library}"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
