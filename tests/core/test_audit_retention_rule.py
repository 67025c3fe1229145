"""How old a record is, told by clocks that nobody can trust."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm_core._internal.audit.pruning import IDLE, RetentionRule, WatchedClock
from hsm_core.testing import FakeClock

DAY = 24 * 3600 * 1_000_000
START = 1_750_000_000_000_000


class _Trail:
    """Times of records under a clock that a test moves."""

    def __init__(self) -> None:
        self.clock = FakeClock(START)
        self.times: list[int] = []
        self.rule = self._opened()

    def _opened(self) -> RetentionRule:
        def read(seq: int, limit: int) -> list[int]:
            return self.times[seq : seq + limit]

        self.watched = WatchedClock(self.clock)
        return RetentionRule(self.watched, len(self.times) - 1, read)

    def record(self) -> None:
        """Write a record now."""
        self.times.append(self.watched.now())

    def days(self, count: int, per_day: int = 2) -> None:
        """Let days pass, with records on each of them."""
        for _ in range(count * per_day):
            self.clock.advance(24 * 3600 / per_day)
            self.record()

    def reopen(self) -> None:
        """Begin anew, with a monotonic clock that knows nothing."""
        self.clock = FakeClock(self.clock.now())
        self.rule = self._opened()

    def prunable(self, days: int) -> int:
        """Return how many records are older than so many days."""
        before = self.clock.now() - days * DAY
        head = len(self.times) - 1
        return self.rule.prunable(0, len(self.times), head, before)


def test_what_is_older_than_the_limit_may_go() -> None:
    """Of 100 days with two records each, those of the first 70 are over 30 days old."""
    trail = _Trail()
    trail.days(100)

    assert 139 == trail.prunable(30)
    trail.reopen()
    assert 139 == trail.prunable(30)
    assert 0 == trail.prunable(100)


def test_the_newest_record_always_stays() -> None:
    """Even if every record is too old the last one is kept."""
    trail = _Trail()
    trail.days(3)
    trail.clock.advance(400 * 24 * 3600)

    assert 5 == trail.prunable(30)


def test_nothing_goes_from_an_open_intent_on() -> None:
    """The end that is given is a limit, and so is the beginning."""
    trail = _Trail()
    trail.days(100)
    before = trail.clock.now() - 30 * DAY

    assert 17 == trail.rule.prunable(0, 17, 199, before)
    assert 5 == trail.rule.prunable(5, 3, 199, before)


def test_a_time_of_the_future_keeps_all_that_follow() -> None:
    """Records after one that seems younger stay: order is by sequence, not by time."""
    trail = _Trail()
    trail.days(10)
    trail.clock.step(3600 * 24 * 365)
    trail.days(1)
    trail.clock.step(-3600 * 24 * 365)
    trail.days(100)

    assert 20 == trail.prunable(30)


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("years", [1, 10])
def test_a_clock_that_steps_forwards_removes_nothing_early(
    years: int, restart: bool
) -> None:
    """After a step of years the records of the last weeks stay, also over a restart."""
    trail = _Trail()
    trail.days(20)
    trail.clock.step(years * 365 * 24 * 3600)
    if restart:
        trail.reopen()
    trail.days(5)

    assert 0 == trail.prunable(33)
    trail.reopen()
    trail.days(40)
    assert trail.prunable(33) > 0


def test_the_present_before_the_newest_record_removes_nothing() -> None:
    """A clock that stands before the newest record is wrong now or was wrong then."""
    trail = _Trail()
    trail.days(100)
    trail.clock.step(-2 * 24 * 3600)

    assert 0 == trail.prunable(30)
    trail.days(3)
    assert trail.prunable(30) > 0


def test_silence_while_the_trail_is_open_counts_wholly() -> None:
    """What the monotonic clock has counted has passed, records or not."""
    trail = _Trail()
    trail.days(10)
    trail.clock.advance(60 * 24 * 3600)
    trail.record()

    assert 20 == trail.prunable(30)


def test_silence_before_the_trail_was_opened_counts_for_a_week() -> None:
    """A machine that was off for 60 days may have had a wrong clock instead."""
    trail = _Trail()
    trail.days(10)
    trail.clock.advance(60 * 24 * 3600)
    trail.reopen()
    trail.record()

    assert 0 == trail.prunable(30)
    trail.days(22)
    assert 17 == trail.prunable(30)


@pytest.mark.parametrize(("beyond", "gone"), [(0, 1), (1, 0)])
def test_a_week_of_silence_counts_to_the_microsecond(beyond: int, gone: int) -> None:
    """All of a week is believed, and of what is longer no more than the week."""
    opened = START + IDLE + beyond
    times = [START, opened, opened]
    rule = RetentionRule(
        WatchedClock(FakeClock(opened)), 0, lambda seq, limit: times[seq : seq + limit]
    )

    # By the time that it bears, the first record is older, if by a microsecond.
    assert gone == rule.prunable(0, 2, 2, START + 1)


@given(st.integers(0, 2**32), st.integers(1, 40))
def test_nothing_goes_before_its_time_has_passed(seed: int, days: int) -> None:
    """However clocks step, real age is the limit, but for a week a step at most."""
    generator = random.Random(seed)
    trail = _Trail()
    real, hidden, written = 0, 0, []
    for _ in range(generator.randrange(1, 60)):
        step = generator.choice([0, 0, 0, -5, 3, 400, -400, 3650]) * DAY
        passed = generator.choice([1, 3, 20]) * DAY
        trail.clock.step(step // 1_000_000)
        hidden += min(max(step, 0), IDLE)
        if generator.random() < 0.3:
            trail.reopen()
        trail.clock.advance(passed // 1_000_000)
        real += passed
        trail.record()
        written.append(real + hidden)
        gone = trail.prunable(days)
        assert all(real + hidden - then >= days * DAY for then in written[:gone])


def test_a_record_whose_time_went_back_goes_with_a_later_one() -> None:
    """After a step back a record's time tells nothing of its age."""
    trail = _Trail()
    trail.days(10)
    trail.clock.step(-400 * 24 * 3600)
    trail.record()
    trail.clock.step(400 * 24 * 3600)
    trail.days(1)
    trail.reopen()
    trail.days(29)

    assert 19 == trail.prunable(30)
    trail.days(1)
    assert 22 == trail.prunable(30)
