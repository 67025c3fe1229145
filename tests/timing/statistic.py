# SPDX-License-Identifier: MIT
"""
Whether two classes of inputs take equally long: Welch's test, as dudect does it.

Times have a long tail that comes from the machine and hides what is small. So the test
is done on all of them and, several times more, on those below a percentile of both
classes together; the greatest absolute t is what counts.

Standard:
    O. Reparaz, J. Balasch, I. Verbauwhede: Dude, is my code constant time? (2017).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

THRESHOLD: Final = 4.5
"""Absolute t from which on a difference is taken for one; usual since TVLA (2011)."""

_CROPS: Final = 12
_LEAST: Final = 500
"""Samples of each class, below which a crop says nothing."""


@dataclass(frozen=True)
class Difference:
    """
    How much two classes differ.

    Attributes:
        t: The t of greatest absolute value; positive where the first takes longer.
        crop: Share of the samples that it was found in.
        nanoseconds: Mean of the first class less that of the second, in that share.
    """

    t: float
    crop: float
    nanoseconds: float


def welch(first: Sequence[int], second: Sequence[int]) -> tuple[float, float]:
    """
    Return Welch's t of two samples, and the difference of their means.

    Equal samples without variance have t = 0, others without variance an infinite one.
    """
    means, errors = [], []
    for sample in (first, second):
        count = len(sample)
        mean = math.fsum(sample) / count
        variance = math.fsum((value - mean) ** 2 for value in sample) / (count - 1)
        means.append(mean)
        errors.append(variance / count)
    difference, error = means[0] - means[1], math.sqrt(sum(errors))
    if error:
        return difference / error, difference
    return (math.copysign(math.inf, difference) if difference else 0.0), difference


def compare(first: Sequence[int], second: Sequence[int]) -> Difference:
    """
    Return the greatest difference of two classes.

    Args:
        first: Nanoseconds, 2 samples or more.

        second: The same of the other class.
    """
    pooled = sorted((*first, *second))
    t, mean = welch(first, second)
    found = Difference(t, 1.0, mean)
    for number in range(_CROPS):
        # Dense near the fast end, where the machine disturbs least.
        share = 1 - 0.5 ** (6 * (number + 1) / _CROPS)
        limit = pooled[int(len(pooled) * share)]
        below = [[v for v in sample if v < limit] for sample in (first, second)]
        if min(map(len, below)) < _LEAST:
            continue
        t, mean = welch(*below)
        if abs(t) > abs(found.t):
            found = Difference(t, share, mean)
    return found
