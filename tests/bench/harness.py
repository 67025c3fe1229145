# SPDX-License-Identifier: MIT
"""
Rivals that take turns, so that the machine's moods hit them all alike.

What is told is the median processor time of one operation, over all threads of the
process: what a trail's own thread does is counted too.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

Clock = Callable[[], float]
"""Seconds of something that only grows."""

Loop = Callable[[int], None]
"""Does an operation so many times."""

_TURN_SECONDS = 0.02
_MOST = 1 << 20


def interleave(
    rivals: Mapping[str, Loop],
    *,
    rounds: int = 15,
    turn_seconds: float = _TURN_SECONDS,
    clock: Clock = time.process_time,
) -> dict[str, float]:
    """
    Return the median seconds of one operation, by the name of the rival.

    Args:
        rivals: They are warmed up by counting how many operations fill a turn.

        rounds: In each of them every rival has one turn.

        turn_seconds: How long a turn takes, about; at least one operation.

        clock: Read before and after each turn.
    """
    times = {name: _fitting(loop, turn_seconds, clock) for name, loop in rivals.items()}
    taken: dict[str, list[float]] = {name: [] for name in rivals}
    for _ in range(rounds):
        for name, loop in rivals.items():
            began = clock()
            loop(times[name])
            taken[name].append((clock() - began) / times[name])
    return {name: statistics.median(seconds) for name, seconds in taken.items()}


def repeated(function: Callable[[], object]) -> Loop:
    """Return a loop that calls a function without arguments."""

    def loop(times: int) -> None:
        for _ in range(times):
            function()

    return loop


def _fitting(loop: Loop, turn_seconds: float, clock: Clock) -> int:
    """Return how many operations fill a turn."""
    times = 1
    while times < _MOST:
        began = clock()
        loop(times)
        took = clock() - began
        if took >= turn_seconds / 2:
            return max(1, round(times * turn_seconds / took))
        times *= 2
    return times
