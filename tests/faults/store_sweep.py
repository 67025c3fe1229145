# SPDX-License-Identifier: MIT
"""
Every fault at every system call of the stores in files; takes minutes.

The key store is killed and failed at each call of each operation, the stores of
approvals are killed at each call of each step.

Usage: ``FERROHSM_FAULTS=1 python -m tests.faults.store_sweep``. Needs strace. Without
the variable only every other call fails.
"""

import argparse
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from tests.core.approval_kills import CALLS, assert_old_or_new, sweep
from tests.core.approval_steps import STEPS
from tests.core.filesystem_support import SCENARIOS, folder_in_memory, make_template
from tests.core.filesystem_sweeps import NUMBERS, fail_every_call, kill_before_every
from tests.core.filesystem_victim import VICTIMS


def run_kills(workers: int = 2) -> int:
    """Kill each operation before each system call; return how many kills there were."""
    with folder_in_memory() as folder, ThreadPoolExecutor(workers) as pool:
        template = make_template(folder / "template")

        def sweep(scenario: str) -> int:
            (folder / scenario).mkdir()
            points = kill_before_every(template, folder / scenario, scenario)
            _say(f"{scenario}: killed at {points} points, all whole")
            return points

        return sum(pool.map(sweep, VICTIMS))


def run_errors() -> int:
    """Fail each call of each operation in each way; return how often that was."""
    total = 0
    with folder_in_memory() as folder:
        template = make_template(folder / "template")
        for scenario in SCENARIOS:
            count = sum(
                fail_every_call(template, folder, scenario, number, sticky=sticky)
                for number in NUMBERS.values()
                for sticky in (False, True)
            )
            _say(f"{scenario}: {count} faults, all told truly")
            total += count
    return total


def run_approvals() -> int:
    """Kill each step on approvals before each system call; return how many kills."""
    total = 0
    with folder_in_memory() as folder:
        for kind in CALLS:
            for name in (*STEPS, "remove"):
                (folder / kind / name).mkdir(parents=True)
                trials = sweep(kind, name, folder / kind / name)
                if name in STEPS:
                    assert_old_or_new(kind, name, folder / kind / name, trials)
                killed = sum(trial.killed for trial in trials)
                _say(f"approvals in {kind}, {name}: killed at {killed} points")
                total += killed
    return total


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main() -> int:
    """Run both, and return an exit code; the first failure raises."""
    argparse.ArgumentParser(description=__doc__.strip().splitlines()[0]).parse_args()
    started = time.monotonic()
    runs: list[Callable[[], int]] = [run_errors, run_kills, run_approvals]
    total = sum(run() for run in runs)
    _say(f"{total} passed, 0 failed, in {time.monotonic() - started:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
