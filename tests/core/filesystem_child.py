# SPDX-License-Identifier: MIT
"""
A program that mutates a store and is killed while it does.

Usage: ``python -m tests.core.filesystem_child TEMPLATE FOLDER SCENARIO [heal]``. For
each place that a mutation can be killed at, a child works on a copy of the template and
kills itself there with SIGKILL. Each copy is named after its place: ``call-N`` is
before the N-th file system call, ``point-NAME`` is a failpoint. With ``heal`` no sync
of a directory works in the mutation, and the repair after it is killed. Prints the
number of copies.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from hsm_core._internal.lib.failpoints import install
from hsm_core._internal.stores.filesystem.stores import FilesystemKeyStore
from hsm_core.errors import HSMError
from tests.core.filesystem_support import (
    CHANGES,
    SCENARIOS,
    FaultyOS,
    copy,
    failing_sync_of_directories,
    patched,
)
from tests.core.forked import was_killed

POINTS = [
    "store.before_blobs",
    "store.after_blobs",
    "store.before_document",
    "store.after_document",
    "store.after_remove",
]


def die() -> None:
    """Kill this process in a way that nothing can catch."""
    os.kill(os.getpid(), signal.SIGKILL)


def heal(template: Path, folder: Path, scenario: str) -> int:
    """Make all copies that are killed in a repair, and return their number."""

    def at_call(directory: Path, nth: int) -> None:
        store = FilesystemKeyStore(directory)
        with patched(failing_sync_of_directories()), suppress(HSMError):
            SCENARIOS[scenario](store)
        with patched(FaultyOS(lambda name, args: die(), nth, nth, CHANGES)):
            store.reopen()

    return at_every_call(template, folder, at_call)


def at_every_call(
    template: Path, folder: Path, at_call: Callable[[Path, int], None]
) -> int:
    """Make a copy for each call that can be killed, and return their number."""
    nth = 1
    while was_killed(
        lambda n=nth: at_call(copy(template, folder / f"call-{n}"), n)  # type: ignore[misc]
    ):
        nth += 1
    return nth


def main(template: Path, folder: Path, scenario: str) -> int:
    """Make all copies and return their number."""
    run = SCENARIOS[scenario]

    def at_call(directory: Path, nth: int) -> None:
        store = FilesystemKeyStore(directory)
        with patched(FaultyOS(lambda name, args: die(), nth, nth, CHANGES)):
            run(store)

    def at_point(directory: Path, wanted: str) -> None:
        store = FilesystemKeyStore(directory)
        with install(lambda name: die() if name == wanted else None):
            run(store)

    for point in POINTS:
        directory = copy(template, folder / f"point-{point}")
        assert was_killed(lambda d=directory, p=point: at_point(d, p))  # type: ignore[misc]
    return len(POINTS) + at_every_call(template, folder, at_call)


if __name__ == "__main__":
    run = heal if sys.argv[4:] == ["heal"] else main
    sys.stdout.write(str(run(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])))
