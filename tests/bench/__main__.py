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

_PAGE: Final = REPOSITORY / "docs" / "reference" / "benchmarks.md"


def main(numbers: list[str]) -> None:
    """Measure the goals of these numbers, or all and write the page."""
    found: dict[Goal, list[Finding]] = {}
    with tempfile.TemporaryDirectory(prefix="ferrohsm-bench-") as folder:
        with Rig(Path(folder)) as rig:
            for goal in chosen(numbers):
                sys.stderr.write(f"{goal.number}: {goal.about}\n")
                found[goal] = _measured(goal, rig)
    sys.stdout.write(f"{table(found)}\n{summary(found)}\n")
    if not numbers:
        date = datetime.datetime.now(datetime.UTC).date().isoformat()
        _PAGE.write_text(page(found, date=date, machine=_machine()))


def _measured(goal: Goal, rig: Rig) -> list[Finding]:
    """Measure one row; what it stumbles over is told, and does not cost the others."""
    try:
        return goal.measure(rig)
    except Exception as error:
        traceback.print_exc()
        return [Absent(what=goal.about, why=f"the row failed: {error}")]


def _machine() -> str:
    """Return the class of the machine, and of what runs on it; no name, no path."""
    library = backend.openssl_version_text().rsplit(" ", 3)[0]
    return (
        f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}; "
        f"load of the last quarter of an hour {os.getloadavg()[2]:.0f}; "
        f"Python {platform.python_version()}; cryptography with {library}"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
