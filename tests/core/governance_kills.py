# SPDX-License-Identifier: MIT
"""
Kills a whole HSM before every system call by which a step of governance changes a disk.

Usage: ``python -m tests.core.governance_kills KIND STEP FOLDER MOST``. MOST points are
tried, evenly spread; 0 for all. strace counts the calls of each thread by itself, and
so each thread is followed by itself. After each kill another process starts on what was
left, and sees the step through. Prints the numbers of a `Sweep`.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Final, NamedTuple

from tests.core.approval_kills import filled, struck
from tests.core.governance_steps import STEPS, Site, check_whole, finish, make_template
from tests.support import REPOSITORY, require_program

CALLS: Final = (
    *("openat", "write", "pwrite64", "fsync", "fdatasync", "ftruncate"),
    *("rename", "renameat", "renameat2", "unlink", "unlinkat", "link", "linkat"),
    *("mkdir", "mkdirat", "rmdir", "fallocate"),
)
"""System calls that can change a disk; an `openat` that makes nothing is passed by."""

_LINE: Final = re.compile(r"(\d+) +(\w+)\((.*)")


@dataclass(frozen=True)
class Sweep:
    """
    What became of a sweep.

    Attributes:
        points: How many calls there are.
        tried: How many of them were to be the last one.
        killed: How many were; where threads race, one has a call less at times.
        undone: After how many kills the step was not in.
    """

    points: int
    tried: int
    killed: int
    undone: int

    @property
    def done(self) -> int:
        """After how many kills it was in."""
        return self.killed - self.undone


class Point(NamedTuple):
    """The *nth* call of a name by a thread, by its place among those of the start."""

    thread: int
    call: str
    nth: int


def sweep(kind: str, step: str, folder: Path, *, most: int = 0) -> Sweep:
    """
    Kill a step at its points, in a process that is free of other threads.

    Args:
        kind: One of `KINDS`.

        step: One of `STEPS`.

        folder: For the copies of what is killed.

        most: How many points are tried, evenly spread; 0 for all.
    """
    require_program("strace")
    program = [sys.executable, "-m", "tests.core.governance_kills"]
    words = [kind, step, str(folder), str(most)]
    answer = subprocess.run(
        [*program, *words],
        cwd=REPOSITORY,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return Sweep(*map(int, answer.stdout.split()))


class _Sweeper:
    """What all trials of a step share."""

    def __init__(self, kind: str, step: str, folder: Path) -> None:
        self.kind, self.step, self.folder = kind, step, folder
        self.template = folder / "template"
        self.template.mkdir(mode=0o700)
        self.now = self._elsewhere(lambda: make_template(self.template, kind))

    def points(self) -> list[Point]:
        """Return all points, from a run that nobody ends."""
        log = self.folder / "calls"
        copy = shutil.copytree(self.template, self.folder / "whole")
        rules = ["-e", f"trace={','.join(CALLS)}", "-o", str(log), "-f", "-p", "{}"]
        threads, status, _ = struck(
            lambda: self._prepared(copy), lambda ids: filled(rules, ids[0])
        )
        assert status == 0, status
        self._see_through(copy, acknowledged=True)
        numbers, found = Counter[tuple[int, str]](), []
        for line in log.read_text().splitlines():
            match = _LINE.match(line)
            if match is None or match[2] not in CALLS:
                continue
            # Who is not among them began in the step, and nothing would kill it.
            thread = threads.index(int(match[1]))
            numbers[thread, match[2]] += 1
            if match[2] != "openat" or "O_CREAT" in match[3] or "O_TMP" in match[3]:
                found.append(Point(thread, match[2], numbers[thread, match[2]]))
        return found

    def kill(self, point: Point) -> tuple[bool, bool]:
        """Kill the step at a point; return whether that came about, and it was in."""
        name = f"{point.thread}-{point.call}-{point.nth}"
        copy = shutil.copytree(self.template, self.folder / name)
        rules = [
            *("-e", f"trace={point.call}", "-o", os.devnull),
            *("-e", f"inject={point.call}:signal=KILL:when={point.nth}", "-p", "{}"),
        ]
        _, status, acknowledged = struck(
            lambda: self._prepared(copy), lambda ids: filled(rules, ids[point.thread])
        )
        was_in = self._see_through(copy, acknowledged=acknowledged)
        shutil.rmtree(copy)
        return status != 0, was_in

    def _see_through(self, copy: Path, *, acknowledged: bool) -> bool:
        def look() -> bool:
            check_whole(copy, self.kind)
            site = Site(copy, self.kind, self.now)
            was_in = finish(site, self.step, acknowledged=acknowledged)
            site.gateway.close()
            return was_in

        return bool(self._elsewhere(look))

    def _prepared(self, copy: Path) -> Callable[[], object]:
        site = Site(copy, self.kind, self.now)
        return lambda: STEPS[self.step](site)

    @staticmethod
    def _elsewhere(look: Callable[[], int]) -> int:
        """Call something in a child, so that no thread of it is forked later."""
        hear, said = os.pipe()
        child = os.fork()
        if not child:
            try:
                os.write(said, str(int(look())).encode())
                os._exit(0)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(1)
        os.close(said)
        answer = os.read(hear, 32)
        os.close(hear)
        assert 0 == os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        return int(answer)


def main(kind: str, step: str, folder: Path, most: int) -> None:
    """Make all trials, and print what became of them."""
    sweeper = _Sweeper(kind, step, folder)
    points = sweeper.points()
    few = min(most or len(points), len(points))
    chosen = [points[n * len(points) // few] for n in range(few)]
    outcomes = [sweeper.kill(point) for point in chosen]
    undone = [killed and not was_in for killed, was_in in outcomes]
    killed = sum(killed for killed, _ in outcomes)
    found = Sweep(len(points), len(chosen), killed, sum(undone))
    sys.stdout.write(" ".join(map(str, astuple(found))) + "\n")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]), int(sys.argv[4]))
