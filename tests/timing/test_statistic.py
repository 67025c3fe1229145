# SPDX-License-Identifier: MIT
"""The statistic sees what is there, and nothing else."""

import math
import random

import pytest

from tests.timing.__main__ import measure
from tests.timing.statistic import THRESHOLD, compare, welch
from tests.timing.subjects import CONTROL, SUBJECTS, Subject


def _times(seed: int, shift: float) -> list[int]:
    """Return 20,000 times with a long tail; most are about 1000 ns."""
    chance = random.Random(seed)
    return [
        int(1000 + shift + chance.gauss(0, 30) + chance.expovariate(1) ** 6)
        for _ in range(20_000)
    ]


def test_the_statistic_is_that_of_welch() -> None:
    """For 1, 2, 3 and 2, 4, 6, 8 it is -3 over the root of 1/3 and 20/12."""
    t, difference = welch([1, 2, 3], [2, 4, 6, 8])

    assert -3 == difference
    assert math.isclose(-3 / math.sqrt(1 / 3 + 20 / 3 / 4), t)


def test_samples_without_variance_are_equal_or_not() -> None:
    """A clock too coarse for what is measured ends in no division by zero."""
    assert (0.0, 0.0) == welch([5, 5], [5, 5])
    assert (-math.inf, -1.0) == welch([5, 5], [6, 6])


@pytest.mark.parametrize("seed", range(5))
def test_equal_classes_do_not_differ(seed: int) -> None:
    """Tails however long are no difference."""
    assert abs(compare(_times(seed, 0), _times(seed + 100, 0)).t) < THRESHOLD


@pytest.mark.parametrize("shift", [-3, 3])
def test_three_nanoseconds_are_seen_below_the_tail(shift: int) -> None:
    """A tenth of the usual spread, hidden by the tail, shows where that is cut off."""
    found = compare(_times(1, shift), _times(2, 0))

    assert found.t * shift > 0
    assert abs(found.t) > THRESHOLD
    assert found.crop < 1


def test_a_comparison_that_stops_early_is_seen() -> None:
    """What the session is for is found with a hundredth of its samples."""
    subject = SUBJECTS[CONTROL]()

    assert abs(measure(subject, 10_000).t) > THRESHOLD


def test_each_subject_is_of_two_kinds() -> None:
    """Inputs of both classes differ in what they are, and not in their size."""
    for name, made in SUBJECTS.items():
        subject = made()
        first, second = subject.make(0), subject.make(1)

        assert isinstance(subject, Subject)
        assert type(first) is type(second), name
        assert first != second, name
        if isinstance(first, str | bytes):
            assert len(first) == len(second), name
        subject.call(first)
        subject.call(second)
