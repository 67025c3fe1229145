# SPDX-License-Identifier: MIT
"""
A program that mutates copies of a SQLite store, to be killed at every step of it.

Usage: ``strace … python -m tests.core.sqlite_sweep TEMPLATE FOLDER SCENARIO``, where
strace kills each process before its `LAST`-th call that changes files. The n-th child
makes so many of these calls on a file of no interest that it is killed before the n-th
call of opening, mutation and closing. Prints the number of children that were killed.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from hsm_core._internal.stores.sqlite.keys import SqliteKeyStore
from tests.core.filesystem_support import SCENARIOS
from tests.core.sqlite_support import copy_of

__all__ = ["CALLS", "LAST"]

CALLS = "pwrite64,fdatasync,fsync,ftruncate,unlink"
LAST = 200


def _mutate(path: Path, scenario: str, spent: int) -> None:
    scratch = os.open(path.with_name("scratch"), os.O_RDWR | os.O_CREAT, 0o600)
    for _ in range(spent):
        os.pwrite(scratch, b"x", 0)
    os.close(scratch)
    store = SqliteKeyStore(path)
    SCENARIOS[scenario](store)
    store.close()


def _was_killed(path: Path, scenario: str, spent: int) -> bool:
    child = os.fork()
    if not child:
        try:
            _mutate(path, scenario, spent)
            os._exit(0)
        finally:
            os._exit(1)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in {0, -signal.SIGKILL}
    return status != 0


def main(template: str, folder: str, scenario: str) -> None:
    """Kill one child after the other, until one is not killed."""
    nth = 1
    while _was_killed(
        copy_of(Path(template), Path(folder) / f"call-{nth}"), scenario, LAST - nth
    ):
        nth += 1
    sys.stdout.write(f"{nth - 1}\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
