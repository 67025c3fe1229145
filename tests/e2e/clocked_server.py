# SPDX-License-Identifier: MIT
"""
A server whose wall clock a test sets, while its monotonic clock goes on as it does.

It serves as hsm-server does, in one process. By how many seconds its clock is ahead
stands in a file, which is read whenever somebody asks for the time::

    clocked_server.py FILE FLAG...
"""

import sys
import time
from pathlib import Path

_SECOND_NS = 1_000_000_000


def _shift(file: Path) -> None:
    """Shift what this process is told of the time, before anybody imports it."""
    wall = time.time_ns

    def now_ns() -> int:
        return wall() + int(file.read_text() or 0) * _SECOND_NS

    time.time_ns = now_ns
    time.time = lambda: now_ns() / _SECOND_NS


if __name__ == "__main__":
    _shift(Path(sys.argv[1]))
    from tests.faults.dying_server import run

    run(sys.argv[2:])
