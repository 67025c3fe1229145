# SPDX-License-Identifier: MIT
"""
Tells the story of seeds: ``python -m tests.simulation --seed N``.

``--seeds N --from K`` lives through many, and tells only of those that fail.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback

from tests.simulation.run import STEPS, FailedLifeError, simulate


def main() -> int:
    """Run; 1 if something was not as it must be."""
    parser = argparse.ArgumentParser("tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="tell the story of this one")
    parser.add_argument("--seeds", type=int, default=500, help="how many")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first")
    parser.add_argument("--steps", type=int, default=STEPS, help="in each life")
    options = parser.parse_args()
    if options.seed is not None:
        return _tell(options.seed, options.steps)
    return _count(range(options.first, options.first + options.seeds), options.steps)


def _tell(seed: int, steps: int) -> int:
    try:
        simulate(seed, steps=steps, tell=_write)
    except FailedLifeError as failure:
        _write(str(failure).splitlines()[-2])
        traceback.print_exception(failure.__cause__)
        return 1
    return 0


def _count(seeds: range, steps: int) -> int:
    failed, years, crashes, began = 0, 0.0, 0, time.perf_counter()
    for seed in seeds:
        try:
            life = simulate(seed, steps=steps)
        except FailedLifeError as failure:
            failed += 1
            _write(str(failure))
            continue
        years, crashes = years + life.years, crashes + life.crashes
    took = time.perf_counter() - began
    _write(
        f"{len(seeds) - failed} passed, {failed} failed: {years:.0f} years, "
        f"{crashes} crashes in {took:.1f} s"
    )
    return 1 if failed else 0


def _write(line: str) -> None:
    sys.stdout.write(line + "\n")


if __name__ == "__main__":
    sys.exit(main())
