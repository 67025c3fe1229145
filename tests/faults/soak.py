# SPDX-License-Identifier: MIT
"""
Keeps a server busy for minutes while something goes wrong every ten seconds.

Four journaling clients load a server with two front ends to 70 % of what it can do
here. Each fault is followed by a check: within ten seconds all is well again, what went
wrong was seen where it should be, and nobody was told that the server itself is broken.
Every minute, and in the end, everything is compared with the journals. Then memory,
threads and open files of the processes are compared with what they were before.
"""

import argparse
import contextlib
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from functools import partial
from pathlib import Path
from typing import Final

from tests.faults.crew import CLIENTS, Crew
from tests.faults.expectation import Violation, check
from tests.faults.growth import Sample, check_growth, look, measure, without_first
from tests.faults.kill_loop import Tally
from tests.faults.rounds import finale
from tests.faults.sinks import small_disk
from tests.faults.soak_faults import Fault, Scene, faults
from tests.faults.watch import Evidence, Mark, Watchman
from tests.support import free_port, heed_signals

PERIOD_SECONDS: Final = 10.0
SEEN_SECONDS: Final = 10.0
_LOAD: Final = 0.7
_CALIBRATION_SECONDS: Final = 5.0
"""How long the most that can be done is measured, in a soak that is long enough."""

_BEFORE_NEXT_SECONDS: Final = 2.0
_FAULTS_PER_EXAMINATION: Final = 6
_MEGABYTES: Final = 1024
_ROTATING: Final = 0.01
_CHANGING: Final = 0.1
"""Less than in the kill loop, so that what is stored grows little meanwhile."""

_UNEXPECTED: Final = "ferrohsm_unexpected_exceptions_total"


class Soak:
    """
    One server under load and faults.

    Args:
        scene: Where they happen; its server runs.

        tally: Counts what passes.
    """

    def __init__(self, scene: Scene, tally: Tally) -> None:
        self._scene = scene
        self._crew = scene.crew
        self._tally = tally
        self._watchman = Watchman(scene.crew.site, scene.server.port)
        self._enough = threading.Event()
        self._working: list[Future[None]] = []
        self._interval = 0.0
        self.samples: list[Sample] = []
        self.suffered: Counter[str] = Counter()

    def calibrate(self, seconds: float) -> float:
        """Measure how many requests a second are answered; load to 70 % after that."""
        before = sum(client.answered for client in self._crew.clients)
        self._begin()
        time.sleep(seconds)
        self._rest()
        answered = sum(client.answered for client in self._crew.clients) - before
        self._interval = CLIENTS * seconds / (_LOAD * answered)
        return answered / seconds

    def suffer(
        self, found: Sequence[Fault], seconds: float, period: float, least: int
    ) -> None:
        """Bring about one fault after the other, in an order that chance decides."""
        until = time.monotonic() + seconds
        pack: list[Fault] = []
        self._begin()
        try:
            while time.monotonic() < until or self.suffered.total() < least:
                if not pack:
                    pack = self._scene.chance.sample(found, len(found))
                due = time.monotonic() + period
                self._suffer(pack.pop())
                time.sleep(max(0.0, due - _BEFORE_NEXT_SECONDS - time.monotonic()))
                self.samples += look(self._scene.server.pid, versions=self._versions())
                time.sleep(max(0.0, due - time.monotonic()))
        finally:
            self._rest()

    def close(self) -> None:
        """End what looks on."""
        self._enough.set()
        self._watchman.close()

    def _suffer(self, fault: Fault) -> None:
        self.suffered[fault.name] += 1
        self._tally.run(fault.name, partial(self._live_through, fault))
        if sum(self.suffered.values()) % _FAULTS_PER_EXAMINATION == 0:
            self._rest()
            self._tally.run("comparison", self._examine)
            self._tally.say(f"{sum(self.suffered.values())} faults: {self.told()}")
            self._begin()

    def _live_through(self, fault: Fault) -> None:
        mark = self._watchman.mark(self._scene.server)
        started = time.monotonic()
        try:
            fault.strike(self._scene)
            lasted = time.monotonic() - started
            recovery = self._crew.wait_well(self._working)
        finally:
            if self._crew.server is None:
                # Whatever went wrong, others are to follow.
                self._crew.start_again()
        self._crew.recoveries.append(recovery)
        evidence = self._wait_seen(fault, mark)
        self._check_expected(evidence)
        self._tally.say(
            f"{fault.name}: {lasted:.1f} s, well again after {recovery:.2f} s; "
            f"{evidence}"
        )

    def _wait_seen(self, fault: Fault, mark: Mark) -> Evidence:
        until = time.monotonic() + SEEN_SECONDS
        while True:
            evidence = self._watchman.since(mark, self._scene.server)
            if evidence.sights and fault.is_seen(evidence):
                return evidence
            check(
                time.monotonic() < until,
                "a fault was not seen as it should be",
                str(evidence),
            )
            time.sleep(0.2)

    @staticmethod
    def _check_expected(evidence: Evidence) -> None:
        """Check that nothing happened that nobody thought of."""
        told = [line for line in evidence.log if line.get("event") == "unexpected"]
        internal = [line for line in evidence.log if line.get("code") == "internal"]
        check(not told and not internal, "an answer of 500", told[:3], internal[:3])

    def _examine(self) -> None:
        self._crew.settle_and_examine(self._scene.server, everything=False)

    def _begin(self) -> None:
        self._enough.clear()
        self._working = self._crew.persist(self._enough, self._interval)

    def _rest(self) -> None:
        self._enough.set()
        self._crew.finish(self._working)

    def _versions(self) -> int:
        return sum(client.versions for client in self._crew.clients)

    def told(self) -> str:
        """Return in numbers what came of it so far."""
        crew = self._crew
        lost, refused, longest = (
            [getattr(client, name) for client in crew.clients]
            for name in ("lost", "refused_now", "longest")
        )
        return (
            f"{crew.acknowledged} requests acknowledged, "
            f"{self._versions()} new versions, "
            f"{crew.retried} changes sent again ({crew.aborted} had been aborted), "
            f"{sum(lost)} connections lost, "
            f"{sum(refused)} answers of 503, longest answer {max(longest):.1f} s, "
            f"{crew.records} records, {crew.examined} comparisons, well again after at "
            f"most {max(crew.recoveries, default=0.0):.2f} s"
        )


def run(
    folder: Path,
    *,
    minutes: float,
    seed: str,
    kind: str,
    period: float,
    only: str = "",
    least: int = 1,
) -> Tally:
    """
    Soak a server.

    Args:
        folder: An empty one.

        minutes: How long.

        seed: Of every choice; the moments are as random as the machine.

        kind: Where the server keeps everything: ``filesystem`` or ``sqlite``.

        period: Seconds from one fault to the next.

        only: Part of the names of the faults that are to be brought about.

        least: How many faults, even if the time is up, for each takes its own.
    """
    tally = Tally()
    flags = ("--bind", f"127.0.0.1:{free_port()}")
    crew = Crew(
        folder / "site",
        seed,
        kind,
        flags=flags,
        rotating=_ROTATING,
        changing=_CHANGING,
    )
    disk = crew.site.folder / "disk"
    disk.mkdir(mode=0o700)
    crew.site.trail_folder = disk
    with _disk(disk) as has_disk, crew:
        crew.start()
        scene = Scene(crew, random.Random(seed), has_disk)
        soak = Soak(scene, tally)
        found = [f for f in faults(kind, has_disk=has_disk) if only in f.name]
        try:
            rate = soak.calibrate(min(_CALIBRATION_SECONDS, minutes * 10))
            tally.say(f"{rate:.0f} requests/s at most; {len(found)} kinds of faults")
            soak.suffer(found, minutes * 60, period, least)
        except Violation as violation:
            tally.fail("load", violation)
            return tally
        finally:
            soak.close()
        tally.run("in the end", lambda: finale(crew))
        growth = measure(without_first(soak.samples))
        for one in growth:
            tally.say(str(one))
        tally.run("growth", lambda: check_growth(growth))
        tally.say(", ".join(f"{n} {c}" for n, c in sorted(soak.suffered.items())))
        tally.say(f"in the end: {soak.told()}")
    return tally


@contextlib.contextmanager
def _disk(folder: Path) -> Iterator[bool]:
    """Give a folder a small disk of its own where that is allowed."""
    if shutil.which("mount") is None:
        yield False
        return
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(small_disk(folder, _MEGABYTES))
        except subprocess.CalledProcessError:
            has_disk = False
        else:
            has_disk = True
        yield has_disk


def main() -> int:
    """Soak as the command line says, and print the sum."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0, help="all in all")
    parser.add_argument("--seed", default=str(random.randrange(2**32)))
    parser.add_argument("--kind", choices=["filesystem", "sqlite"])
    parser.add_argument("--period", type=float, default=PERIOD_SECONDS)
    parser.add_argument("--only", default="", help="part of the names of faults")
    given = parser.parse_args()
    kinds = [given.kind] if given.kind else ["filesystem", "sqlite"]
    for kind in kinds:
        if not any(given.only in f.name for f in faults(kind, has_disk=True)):
            parser.error(f"--only: no fault over {kind} has {given.only!r} in its name")
    heed_signals()
    sys.stdout.write(f"seed {given.seed}\n")
    passed = failed = 0
    for kind in kinds:
        sys.stdout.write(f"over {kind}\n")
        with tempfile.TemporaryDirectory(prefix="ferrohsm-soak-") as folder:
            tally = run(
                Path(folder),
                minutes=given.minutes / len(kinds),
                seed=given.seed,
                kind=kind,
                period=given.period,
                only=given.only,
            )
        passed, failed = passed + tally.passed, failed + tally.failed
    sys.stdout.write(f"{passed} passed, {failed} failed\n")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
