"""
Kills a prune at every call that changes a file; run by a test as a process.

Each round forks a child that opens an old trail, prunes it and writes on, and dies at
its n-th call, before it or in the middle of it; a second child may die while it opens
what the first one left; a third one checks that the trail is whole. Prints how many
rounds there were.

Arguments: scratch folder, scenario (``first``: the trail was never pruned; ``again``:
it was), and ``before`` or ``within``.
"""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import sys
from pathlib import Path

from hsm_core._internal.audit.baseline import KnownKeys
from hsm_core._internal.audit.record import event_of
from hsm_core.model import PruneDetail
from hsm_core.testing import FakeClock
from tests.core.audit_prune_support import (
    age,
    ago,
    open_aged,
    prune,
    roots_of,
    segments_of,
)
from tests.core.audit_support import draft, fill, verified
from tests.core.audit_sweep import arm, in_child

DAYS = 16
KEPT = 6
LATER = 1_750_000_000_000_000 + 100 * 24 * 3600 * 1_000_000


def _clock() -> FakeClock:
    """Return a clock a few minutes after the newest record of the prepared trails."""
    return FakeClock(LATER)


def _prepare(folder: Path) -> None:
    """Make the trails that the scenarios begin with, and keep all lines beside them."""
    clock = FakeClock(LATER - DAYS * 24 * 3600 * 1_000_000)
    path = folder / "first" / "audit.log"
    log = open_aged(path, clock)
    age(log, clock, DAYS)
    lines = log.lines(0, 10_000)
    log.close()
    shutil.copytree(folder / "first", folder / "again")
    log = open_aged(folder / "again" / "audit.log", _clock())
    prune(log, _clock(), KEPT + 5)
    lines += log.lines(len(lines), 10)
    log.close()
    (folder / "lines").write_bytes(b"\n".join(lines))


def _work(path: Path) -> None:
    clock = _clock()
    log = open_aged(path, clock)
    log.prune(log.prunable(ago(clock, KEPT)), "swept")
    for number in range(3):
        log.append([draft(number)]).wait()
    log.close()


class Round:
    """One death, and what comes after it."""

    def __init__(
        self, folder: Path, lines: list[bytes], number: int, *, within: bool
    ) -> None:
        self._path = folder / "audit.log"
        self._lines = lines
        self._number = number
        self._within = within
        self._first = _first(self._path)

    def run(self) -> bool:
        """Return whether the pruner died; False means that it had no more calls."""
        ended = in_child(self._write)
        if ended not in (0, -signal.SIGKILL):
            raise SystemExit(f"round {self._number}: the pruner failed")
        if self._number % 2 == 0:
            in_child(self._reopen)
        if in_child(self._check) != 0:
            raise SystemExit(f"round {self._number}: the check failed")
        return ended != 0

    def _write(self) -> None:
        arm(self._number, within=self._within)
        _work(self._path)

    def _reopen(self) -> None:
        choice = random.Random(self._number)
        arm(choice.randint(1, 20), within=choice.random() < 0.5)
        open_aged(self._path, _clock()).close()

    def _check(self) -> None:
        verified(self._path)
        clock = _clock()
        log = open_aged(self._path, clock)
        first = log.first_seq
        self._compare(first, log.lines(first, 10_000), list(log.baseline()))
        log.prune(log.prunable(ago(clock, KEPT)), "once more")
        fill(log, 3)
        last = log.first_seq
        log.close()
        found = verified(self._path)
        names = [segment.name for segment in segments_of(self._path)]
        if not (found.clean and found.first_seq == last > self._first):
            raise AssertionError(found.first_seq, last)
        if any(int(name[-16:]) < last for name in names):
            raise AssertionError(names)
        if found.pruned_roots != roots_of(self._lines[:last]):
            raise AssertionError("other roots")
        if (self._path.parent / "audit.log.baseline.new").exists():
            raise AssertionError("a baseline was left over")

    def _compare(self, first: int, lines: list[bytes], kept: object) -> None:
        """Check that what is there is what was written, and the rest is told."""
        whole = self._lines
        if lines[: len(whole) - first] != whole[first:]:
            raise AssertionError("records are lost or changed")
        known = KnownKeys()
        for seq, line in enumerate(whole[:first]):
            known.note(event_of(line, seq))
        if kept != list(known):
            raise AssertionError("other keys")
        details = [event_of(line, first + n).detail for n, line in enumerate(lines)]
        prunes = [detail for detail in details if isinstance(detail, PruneDetail)]
        if first and first not in {detail.next_seq for detail in prunes}:
            raise AssertionError("no record tells of the prune")


def _first(path: Path) -> int:
    return int(segments_of(path)[0].name[-16:])


def main(arguments: list[str]) -> None:
    """Sweep until a pruner survives."""
    scratch, scenario, mode = arguments
    folder = Path(scratch)
    if in_child(lambda: _prepare(folder)) != 0:
        raise SystemExit("the trails could not be made")
    lines = (folder / "lines").read_bytes().split(b"\n")
    if scenario == "first":
        lines = lines[: DAYS * 4]
    survived = 0
    for number in itertools.count(1):
        place = folder / f"round-{number}"
        shutil.copytree(folder / scenario, place)
        died = Round(place, lines, number, within=mode == "within").run()
        shutil.rmtree(place)
        survived = 0 if died else survived + 1
        if survived == 2:
            os.write(1, b"%d\n" % (number - survived))
            return


if __name__ == "__main__":
    main(sys.argv[1:])
