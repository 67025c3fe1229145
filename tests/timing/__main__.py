# SPDX-License-Identifier: MIT
"""
Measures whether what is compared or decapsulated can be told by the time it takes.

Inputs of two classes come in random order, in one process that stays on one processor.
Single bytes may cost a nanosecond more than others, whatever they are compared with. So
a subject whose classes differ is measured again with other keys: what is found four
times with the same sign is a fault. A comparison that stops early must be found so;
else this machine is too restless to say anything.
"""

from __future__ import annotations

import argparse
import gc
import os
import random
import sys
import time
from collections.abc import Sequence
from typing import Final

from tests.timing.statistic import THRESHOLD, Difference, compare
from tests.timing.subjects import CONTROL, SUBJECTS, Subject

_WARM: Final = 500
_TIMES: Final = 4
_ENOUGH: Final = 20_000
"""Samples in which a comparison that stops early shows."""


def measure(subject: Subject, count: int) -> Difference:
    """
    Do something *count* times, and compare the times of its two classes.

    Args:
        subject: What to do.

        count: Of both classes together.
    """
    chance = random.Random(time.time_ns())
    call, make, clock = subject.call, subject.make, time.perf_counter_ns
    times: tuple[list[int], list[int]] = ([], [])
    gc.collect()
    gc.disable()
    try:
        for number in range(count + _WARM):
            which = chance.getrandbits(1)
            given = make(which)
            before = clock()
            call(given)
            after = clock()
            if number >= _WARM:
                times[which].append(after - before)
    finally:
        gc.enable()
    return compare(*times)


def _examine(name: str, samples: int) -> bool:
    """Measure a subject, say what was found, and return whether it is as it should."""
    found: list[Difference] = []
    began = time.monotonic()
    count = min(samples, SUBJECTS[name]().most, _ENOUGH if name == CONTROL else samples)
    while True:
        found.append(measure(SUBJECTS[name](), count))
        differs = abs(found[-1].t) >= THRESHOLD and found[-1].t * found[0].t > 0
        if not differs or len(found) == _TIMES:
            break
    good = differs == (name == CONTROL)
    told = ", then ".join(
        f"t {one.t:.2f} ({one.nanoseconds:.0f} ns in {one.crop:.0%})" for one in found
    )
    sys.stdout.write(
        f"{'' if good else 'FAILED: '}{name}: {count} samples: {told}; "
        f"{time.monotonic() - began:.0f} s\n"
    )
    sys.stdout.flush()
    return good


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the command line names, or everything."""
    parser = argparse.ArgumentParser(
        description=(__doc__ or "").strip().splitlines()[0]
    )
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("subjects", nargs="*", metavar="SUBJECT")
    chosen = parser.parse_args(arguments)
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    names = chosen.subjects or list(SUBJECTS)
    failed = [name for name in names if not _examine(name, chosen.samples)]
    sys.stdout.write(f"{len(names) - len(failed)} passed, {len(failed)} failed\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
