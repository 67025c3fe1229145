# SPDX-License-Identifier: MIT
"""
A program that is killed before each system call that a step on approvals makes.

Usage: ``python -m tests.core.approval_kills KIND STEP FOLDER CALL…``. For each call a
child opens a copy of the store, and strace lets SIGKILL come before the n-th such call
of the step, for every n that there is. The copies are named ``CALL-N``. Prints a line
for each: its name, whether it was killed, and whether the step had been acknowledged.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from tests.core.approval_steps import make_template, seen, step
from tests.core.approval_support import ROWS, ApprovalRow
from tests.support import REPOSITORY, require_program

CALLS: Final = {
    "filesystem": ["openat", "write", "fsync", "rename", "unlink", "ftruncate"],
    "sqlite": ["openat", "pwrite64", "write", "fsync", "fdatasync", "ftruncate"],
}
"""System calls that can change a disk, by the kind of store that may make them."""


@dataclass(frozen=True)
class Trial:
    """
    One run of a step.

    Attributes:
        folder: Where its store is.
        killed: Whether the call was reached.
        acknowledged: Whether the step had returned.
    """

    folder: Path
    killed: bool
    acknowledged: bool


def row_of(kind: str) -> ApprovalRow:
    """Return an implementation by its name."""
    (row,) = (row for row in ROWS if row.name == kind)
    return row


def sweep(kind: str, name: str, folder: Path) -> list[Trial]:
    """
    Kill a step before each of its calls; the copies stay below *folder*.

    Args:
        kind: A key of `CALLS`.

        name: A step of `STEPS`, or ``remove``.

        folder: Empty.
    """
    require_program("strace")
    store = row_of(kind).open(folder / "template")
    make_template(store)
    store.close()
    program = [sys.executable, "-m", "tests.core.approval_kills"]
    answer = subprocess.run(
        [*program, kind, name, str(folder), *CALLS[kind]],
        cwd=REPOSITORY,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    trials = []
    for line in answer.stdout.splitlines():
        place, killed, acknowledged = line.split()
        trials.append(Trial(folder / place, killed == "True", acknowledged == "True"))
    return trials


def assert_old_or_new(kind: str, name: str, folder: Path, trials: list[Trial]) -> None:
    """
    Check that each trial left the old state or the new one, and works on.

    What was acknowledged is there; nothing is left over; and both states occur.
    """
    row = row_of(kind)
    store = row.open(shutil.copytree(folder / "template", folder / "whole"))
    old = seen(store)
    step(store, name)
    new = seen(store)
    store.close()
    outcomes = set()
    for trial in trials:
        store = row.open(trial.folder)
        found = seen(store)
        # The clock of every trial stands still, so that all make the same records.
        assert found in ([new] if trial.acknowledged else [old, new])
        outcomes.add((trial.killed, found == new))
        if found == old:
            step(store, name)
        assert new == seen(store)
        store.close()
        assert not list(trial.folder.rglob(".tmp-*"))
    assert {(True, False), (False, True)} <= outcomes


def struck(
    prepare: Callable[[], Callable[[], object]], rules: Callable[[list[int]], list[str]]
) -> tuple[list[int], int, bool]:
    """
    Let strace strike a step in a child of its own.

    Args:
        prepare: Opens what is needed, and returns the step; called in the child.

        rules: Options of strace, for the child's threads before the step.

    Returns:
        These threads, the child's status, and whether the step had returned.
    """
    (go, wake), (hear, said) = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        try:
            step = prepare()
            os.write(said, b"open\n")
            os.read(go, 1)
            step()
            # The end is told by a call that nobody counts, and nothing is closed.
            os.writev(said, [b"done\n"])
            os._exit(0)
        finally:
            os._exit(1)
    os.close(go)
    os.close(said)
    assert b"open\n" == os.read(hear, 16)
    threads = sorted(map(int, os.listdir(f"/proc/{child}/task")))
    with subprocess.Popen(
        ["strace", *rules(threads)], stderr=subprocess.PIPE
    ) as strace:
        assert strace.stderr is not None
        line = strace.stderr.readline()
        assert b"attached" in line, line
        os.write(wake, b"x")
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    acknowledged = os.read(hear, 16) == b"done\n"
    os.close(wake)
    os.close(hear)
    assert status in {0, -signal.SIGKILL}, status
    return threads, status, acknowledged


def filled(rules: list[str], thread: int) -> list[str]:
    """Return options of strace about a thread."""
    return [rule.format(thread) for rule in rules]


def _of_the_first(rules: list[str], threads: list[int]) -> list[str]:
    return filled(rules, threads[0])


def _prepared(row: ApprovalRow, folder: Path, name: str) -> Callable[[], None]:
    store = row.open(folder)
    return lambda: step(store, name)


def main(kind: str, name: str, folder: Path, calls: list[str]) -> None:
    """Make all trials, and print what became of each."""
    row = row_of(kind)
    for call in calls:
        nth, killed = 0, True
        while killed:
            nth += 1
            place = f"{call}-{nth}"
            copy = shutil.copytree(folder / "template", folder / place)
            rule = f"inject={call}:signal=KILL:when={nth}"
            rules = ["-f", "-p", "{}", "-o", os.devnull, "-e", rule]
            _, status, acknowledged = struck(
                partial(_prepared, row, copy, name), partial(_of_the_first, rules)
            )
            killed = status != 0
            sys.stdout.write(f"{place} {killed} {acknowledged}\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), sys.argv[4:])
