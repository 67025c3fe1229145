# SPDX-License-Identifier: MIT
"""
Kills a busy server again and again: nothing acknowledged is lost, nothing is half-done.

Four clients over HTTPS keep journals of what they were promised. A real hsm-server with
two front ends is killed at random moments, then at named points of the core. After
every kill it is started again and compared with the journals, and the trail is verified
offline. Of the random kills some hit the vault or a front end alone, or only stop it;
then the server goes on, and so do the clients.
"""

import argparse
import random
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from hsm_core.errors import HSMError
from tests.e2e.https import NoAnswerError
from tests.e2e.processes import ServerExitError
from tests.faults.crew import Crew
from tests.faults.expectation import Violation
from tests.faults.rounds import (
    failpoint_round,
    failpoints,
    finale,
    random_round,
    server_round,
)
from tests.support import heed_signals

_EVERY = 10
_FAILURES = (Violation, HSMError, NoAnswerError, ServerExitError, TimeoutError)


class Tally:
    """How many rounds passed and failed, told as they go by."""

    def __init__(self) -> None:
        self.passed = self.failed = 0
        self._started = time.monotonic()

    def run(self, name: str, call: Callable[[], None]) -> bool:
        """Run one round and count it; return whether it passed."""
        try:
            call()
        except _FAILURES as error:
            self.fail(name, error)
            return False
        self.passed += 1
        return True

    def fail(self, name: str, error: Exception) -> None:
        """Count one that failed."""
        self.failed += 1
        self.say(f"FAILED {name}: {type(error).__name__}: {error}")

    def say(self, text: str) -> None:
        """Print a line with the time since the start."""
        elapsed = time.monotonic() - self._started
        sys.stdout.write(f"[{elapsed:6.1f} s] {text}\n")
        sys.stdout.flush()


def run(
    folder: Path,
    *,
    kills: int,
    seed: str,
    kind: str = "filesystem",
    points: int = sys.maxsize,
) -> Tally:
    """
    Kill a server *kills* times at random and, over files, once at named points.

    Args:
        folder: Where sites and journals are made.

        kills: Random kills.

        seed: Of every choice; the moments of the kills are as random as the machine.

        kind: Where it keeps everything: ``filesystem`` or ``sqlite``.

        points: How many of the named points to kill it at; others each time.
    """
    tally, chance = Tally(), random.Random(seed)
    hit: Counter[str] = Counter()
    with Crew(folder / "random", seed, kind) as crew:
        for count in range(1, kills + 1):
            if not tally.run(
                f"kill {count}", lambda: hit.update([random_round(crew, chance)])
            ):
                return tally
            if count % _EVERY == 0:
                tally.say(f"{count} kills ({_counted(hit)}): {_told(crew)}")
        tally.run("after the random kills", lambda: finale(crew))
        tally.say(f"in the end: {_told(crew)}")
    named = failpoints()
    named = sorted(chance.sample(named, min(points, len(named))))
    if kind != "filesystem" or not named:
        return tally
    with Crew(folder / "points", seed) as crew:
        if not tally.run("the first of others", lambda: server_round(crew, chance)):
            return tally
        for point in named:
            if not tally.run(point, partial(_at, folder, crew, point, chance)):
                return tally
            tally.say(f"killed at {point}: {_told(crew)}")
        tally.run("after the named points", lambda: finale(crew))
        tally.say(f"in the end: {_told(crew)}")
    return tally


def _at(folder: Path, crew: Crew, point: str, chance: random.Random) -> None:
    if not point.startswith("audit.create."):
        failpoint_round(crew, point, chance)
        return
    with Crew(folder / point, str(chance.random())) as newcomers:
        failpoint_round(newcomers, point, chance)
        finale(newcomers)


def _counted(hit: Counter[str]) -> str:
    return ", ".join(f"{name} {count}" for name, count in hit.most_common())


def _told(crew: Crew) -> str:
    median, longest = statistics.median(crew.starts), max(crew.starts)
    return (
        f"{crew.acknowledged} requests acknowledged, {crew.retried} changes sent again "
        f"({crew.aborted} had been aborted), {crew.agreed} approvals used, "
        f"{crew.records} records, "
        f"{crew.examined} comparisons, ready after {median:.2f} s "
        f"(at most {longest:.2f} s), well again after at most "
        f"{max(crew.recoveries, default=0.0):.2f} s"
    )


def main() -> int:
    """Run the loop as the command line says, and print the sum."""
    parser = argparse.ArgumentParser(description=__doc__.strip().splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="random kills")
    parser.add_argument("--points", type=int, default=sys.maxsize, help="named points")
    parser.add_argument("--seed", default=str(random.randrange(2**32)))
    parser.add_argument("--kind", choices=["filesystem", "sqlite"])
    arguments = parser.parse_args()
    heed_signals()
    sys.stdout.write(f"seed {arguments.seed}\n")
    passed = failed = 0
    for kind in [arguments.kind] if arguments.kind else ["filesystem", "sqlite"]:
        sys.stdout.write(f"over {kind}\n")
        with tempfile.TemporaryDirectory(prefix="ferrohsm-kill-") as folder:
            tally = run(
                Path(folder),
                kills=arguments.kills,
                seed=arguments.seed,
                kind=kind,
                points=arguments.points,
            )
        passed, failed = passed + tally.passed, failed + tally.failed
    sys.stdout.write(f"{passed} passed, {failed} failed\n")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
