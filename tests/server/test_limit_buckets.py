# SPDX-License-Identifier: MIT
"""Buckets and lock-outs: fair, bounded, and never forgotten to somebody's advantage."""

import itertools
import sys
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm_server.limits.buckets import BoundedTable, Buckets, Lockouts, Rate
from hsm_server.limits.guard import peer_of

PER_SECOND, BURST = 10.0, 20
MANY = 200_000
PLACES = 16384
MOST_BYTES = 12 * 1024 * 1024


class Clock:
    """A clock that stands still until it is told otherwise."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        """Return the time."""
        return self.now


def buckets(clock: Callable[[], float], most: int = 100) -> Buckets:
    """Return buckets of 20 that get 10 a second."""
    return Buckets("actor", Rate(PER_SECOND, BURST), most, clock)


def spend(found: Buckets, key: str) -> int:
    """Spend one at a time until it is refused; return how many were let through."""
    return sum(1 for _ in itertools.takewhile(lambda _: _may(found, key), range(1000)))


def _may(found: Buckets, key: str) -> bool:
    return not found.take(key).wait_seconds


class TestBuckets:
    def test_a_burst_and_then_the_rate(self) -> None:
        """Twenty at once, then one each tenth of a second."""
        clock = Clock()
        found = buckets(clock)
        assert BURST == spend(found, "alice")

        refused = found.take("alice")
        assert pytest.approx(0.1) == refused.wait_seconds
        # In whole seconds, and never at once.
        told = {"limit": "actor", "retry_after_seconds": 1}
        assert told == refused.error().facts
        clock.now += 1.0
        assert PER_SECOND == spend(found, "alice")

    def test_what_is_refused_costs_nothing(self) -> None:
        """Who is impatient doesn't wait longer."""
        clock = Clock()
        found = buckets(clock)
        spend(found, "alice")
        for _ in range(100):
            found.take("alice")
        clock.now += 0.1

        assert 1 == spend(found, "alice")

    def test_more_than_a_bucket_holds(self) -> None:
        """It needs a full bucket, and is paid for in the end."""
        clock = Clock()
        found = buckets(clock)
        quota = found.take("alice", 100)

        assert (0.0, 0, 10) == (
            quota.wait_seconds,
            quota.remaining,
            quota.reset_seconds,
        )
        clock.now += 8.0
        assert found.take("alice").wait_seconds
        clock.now += 0.2
        assert not found.take("alice").wait_seconds
        assert found.take("alice", 100).wait_seconds

    def test_what_is_left_is_told(self) -> None:
        """A quota says what may be spent, and when all of it is back."""
        found = buckets(Clock())
        quota = found.take("alice", 5)

        assert (BURST, 2, 15, 1) == (
            quota.burst,
            quota.window_seconds,
            quota.remaining,
            quota.reset_seconds,
        )
        assert {
            "RateLimit-Policy": '"actor";q=20;w=2',
            "RateLimit": '"actor";r=15;t=1',
        } == quota.headers

    @given(
        steps=st.lists(
            st.tuples(st.floats(0, 5), st.integers(1, 30)), min_size=1, max_size=60
        )
    )
    def test_nobody_gets_more_than_burst_and_rate(
        self, steps: list[tuple[float, int]]
    ) -> None:
        """Over any time: at most the burst, what came back, and one debt."""
        clock = Clock()
        found, began, spent, last = buckets(clock), clock.now, 0, 0
        for pause, cost in steps:
            clock.now += pause
            if not found.take("alice", cost).wait_seconds:
                spent, last = spent + cost, cost
            allowed = BURST + (clock.now - began) * PER_SECOND
            assert spent <= allowed + max(0, last - BURST) + 1e-6


class TestBounds:
    def test_a_punished_bucket_is_not_forgotten(self) -> None:
        """However many names come, who has spent all has nothing."""
        clock = Clock()
        found = buckets(clock, most=10)
        spend(found, "mallory")
        for number in range(10_000):
            found.take(f"name {number}")

        assert found.take("mallory").wait_seconds
        assert 10 == len(found)

    def test_full_ones_make_room(self) -> None:
        """Who has spent nothing lately is as good as new."""
        clock = Clock()
        found = buckets(clock, most=10)
        for number in range(10):
            found.take(f"early {number}")
        clock.now += BURST / PER_SECOND
        spend(found, "late")
        for number in range(100):
            found.take(f"name {number}")

        assert found.take("late").wait_seconds
        assert len(found) <= 10

    def test_newcomers_share_where_there_is_no_room(self) -> None:
        """Many names don't make many bursts, and those who were there keep theirs."""
        clock = Clock()
        found = buckets(clock, most=10)
        for number in range(10):
            found.take(f"known {number}", 2)
        let_through = sum(_may(found, f"name {number}") for number in range(100_000))

        assert BURST <= let_through <= 64 * BURST
        assert BURST - 2 == spend(found, "known 3")

    def test_room_is_no_pardon(self) -> None:
        """Who has spent what is shared has spent it, also when there is room again."""
        clock = Clock()
        found = buckets(clock, most=10)
        for number in range(10):
            found.take(f"early {number}")
        while found.take("mallory").wait_seconds == 0:
            pass
        clock.now += 0.15
        spent = spend(found, "mallory")

        assert 1 == spent

    def test_many_names_need_little_memory(self) -> None:
        """What is remembered of strangers doesn't grow with their number."""
        clock = Clock()
        tracemalloc.start()
        try:
            found, lockouts = buckets(clock, PLACES), Lockouts(3, PLACES, clock)
            for number in range(PLACES):
                found.take(str(number), BURST)
                lockouts.fail(str(number))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        before = sys.getallocatedblocks()
        for number in range(MANY):
            clock.now += 3e-6
            found.take(str(number))
            if not number % 4:
                lockouts.fail(str(number))
        grown = sys.getallocatedblocks() - before

        assert peak < MOST_BYTES
        assert grown < 4 * PLACES
        assert PLACES == len(lockouts)
        assert len(found) <= PLACES

    def test_little_is_looked_at_for_a_newcomer(self) -> None:
        """A full table is no work for whoever comes."""
        looks = 0

        def is_nothing(found: object, now: float) -> bool:
            nonlocal looks
            looks += 1
            return False

        table = BoundedTable(1000, object, is_nothing)
        for number in range(1000):
            table.place(str(number), 0.0)
        looks = 0
        table.place("newcomer", 0.0)

        assert looks <= 2


class TestLockouts:
    def test_the_wait_doubles(self) -> None:
        """After what is free: 1, 2, 4 seconds, and never more than a minute."""
        clock = Clock()
        found = Lockouts(3, 10, clock)
        waits = []
        for _ in range(11):
            found.fail("here")
            refusal = found.refusal("here")
            waits.append(refusal.wait_seconds if refusal else 0.0)
            clock.now += waits[-1]

        assert [0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60] == waits
        assert found.refusal("here") is None

    def test_nobody_else_is_locked_out(self) -> None:
        """A stranger's failures are the stranger's."""
        found = Lockouts(1, 10, Clock())
        for _ in range(5):
            found.fail("there")

        assert found.refusal("there")
        assert found.refusal("here") is None

    def test_five_quiet_minutes_are_a_fresh_start(self) -> None:
        """Failures are not remembered for ever."""
        clock = Clock()
        found = Lockouts(3, 10, clock)
        for _ in range(4):
            found.fail("here")
        clock.now += 301.0
        found.fail("here")

        assert found.refusal("here") is None

    def test_many_names_don_t_pardon(self) -> None:
        """Who is locked out stays so, however many others fail."""
        clock = Clock()
        found = Lockouts(3, 10, clock)
        for _ in range(12):
            found.fail("here")
        for number in range(10_000):
            found.fail(f"name {number}")

        assert found.refusal("here")
        assert 10 == len(found)

    def test_room_is_no_pardon(self) -> None:
        """Who was locked out in a shared place stays so when there is room again."""
        clock = Clock()
        found = Lockouts(3, 10, clock)
        for number in range(10):
            found.fail(f"name {number}")
        clock.now += 295.0
        for _ in range(9):
            found.fail("late")
        clock.now += 10.0
        found.fail("somebody")

        assert len(found) < 10
        assert found.refusal("late")


@pytest.mark.parametrize(
    ("address", "peer"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("@socket", ""),
    ],
)
def test_what_counts_as_one_peer(address: str, peer: str) -> None:
    """Half of an IPv6 address belongs to one network."""
    assert peer == peer_of(address)
