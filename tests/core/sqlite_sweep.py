# SPDX-License-Identifier: MIT
"""
A program that mutates copies of a SQLite store, to be killed at every step of it.

Usage: ``strace … python -m tests.core.sqlite_sweep TEMPLATE FOLDER SCENARIO``, where
strace kills each process before its `LAST`-th call of one name; it counts them by name.
The n-th child for a name makes so many of these calls in vain that it is killed before
the n-th of opening, mutation and closing. Prints how many were killed for each name.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final

from hsm_core._internal.stores.sqlite.records import SqliteKeyStore
from tests.core.filesystem_support import SCENARIOS
from tests.core.forked import was_killed
from tests.core.sqlite_support import copy_of

OPENED: Final = "open"
"""The scenario that opens and closes the store, and does nothing else."""


def _unlink(_: int) -> None:
    with suppress(FileNotFoundError):
        os.unlink("/absent")


CALLS: Final[dict[str, Callable[[int], object]]] = {
    "pwrite64": lambda descriptor: os.pwrite(descriptor, b"x", 0),
    "fdatasync": os.fdatasync,
    "ftruncate": lambda descriptor: os.ftruncate(descriptor, 1),
    "unlink": _unlink,
}
"""The calls by which SQLite changes files, and how to make one in vain."""

LAST: Final = 100


def _mutate(path: Path, scenario: str, call: str, spent: int) -> None:
    scratch = os.open(path.with_name("scratch"), os.O_RDWR | os.O_CREAT, 0o600)
    for _ in range(spent):
        CALLS[call](scratch)
    os.close(scratch)
    store = SqliteKeyStore(path)
    if scenario != OPENED:
        SCENARIOS[scenario](store)
    store.close()


def main(template: str, folder: str, scenario: str) -> None:
    """Kill one child after the other, for each call until one is not killed."""
    for call in CALLS:
        nth = 1
        copy = copy_of(Path(template), Path(folder) / f"{call}-{nth}")
        while was_killed(partial(_mutate, copy, scenario, call, LAST - nth)):
            nth += 1
            copy = copy_of(Path(template), Path(folder) / f"{call}-{nth}")
        sys.stdout.write(f"{call} {nth - 1}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
