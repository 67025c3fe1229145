# SPDX-License-Identifier: MIT
"""Clocks, and how much time has passed, whatever the wall clock says."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hsm_core._internal.time.clock import SteadyTime, instant
from hsm_core._internal.time.clock_guard import (
    SLACK,
    ClockJump,
    ClockJumpGuard,
    decode_jumps,
    decode_look,
    encode_jumps,
    encode_look,
    jumps_of,
    merged,
    seconds_of,
)
from hsm_core.session import Session
from hsm_core.testing import FakeClock, caller, memory_hsm
from tests.core.key_support import RING


def test_an_instant_is_aware() -> None:
    """A stored time becomes a datetime in UTC."""
    assert datetime(2025, 6, 15, 15, 6, 40, 5, UTC) == instant(1_750_000_000_000_005)


@pytest.mark.parametrize(("time", "year"), [(2**60, 9999), (-(2**60), 1)])
def test_times_out_of_this_world(time: int, year: int) -> None:
    """A clock beyond the calendar is shown at the calendar's end, and stops nothing."""
    with memory_hsm(clock=FakeClock(time)) as gateway:
        session = Session(gateway.act_as(caller()))
        session.create_key("ed25519")
        (key,) = session.keys()

    assert key.created_at is not None
    assert year == key.created_at.year


DAY = 24 * 3600
US = 1_000_000


class TestAge:
    def test_over_a_jump(self) -> None:
        """
        Time that the clock jumped over counts only for what came after the jump.
        """
        clock = FakeClock()
        guard, before = ClockJumpGuard(clock), clock.now()
        clock.advance(3 * DAY)
        clock.step(365 * DAY)
        guard.look()
        after = clock.now()
        clock.advance(2 * DAY)

        assert 5 * DAY * US == guard.age(before)
        assert 2 * DAY * US == guard.age(after)

    def test_of_the_future(self) -> None:
        """
        What has not been yet has no age.
        """
        clock = FakeClock()

        assert 0 == ClockJumpGuard(clock).age(clock.now() + 5)

    def test_over_small_steps(self) -> None:
        """
        A day is believed in the life of a process, and nothing more.
        """
        clock = FakeClock()
        guard, at = ClockJumpGuard(clock), clock.now()
        for _ in range(100):
            clock.step(3600)
            guard.look()

        assert SLACK == guard.age(at)

    def test_when_the_clock_was_behind_for_a_while(self) -> None:
        """
        A clock that is set back and then right again has not jumped.
        """
        clock = FakeClock()
        guard, at = ClockJumpGuard(clock), clock.now()
        clock.step(-365 * DAY)
        guard.look()
        clock.advance(DAY)
        guard.look()
        clock.step(365 * DAY)

        assert () == guard.look()
        assert DAY * US == guard.age(at)

    @given(
        steps=st.lists(
            st.tuples(
                st.sampled_from(["advance", "step", "mark"]),
                st.integers(min_value=-4000, max_value=4000),
            ),
            max_size=20,
        )
    )
    def test_never_too_much(self, steps: list[tuple[str, int]]) -> None:
        """
        Nothing gets older than time has passed since, but for a day.
        """
        clock = FakeClock()
        guard = ClockJumpGuard(clock)
        marks, passed = [(guard.now(), 0)], 0
        for what, days in steps:
            if what == "advance":
                clock.advance(abs(days) * DAY)
                passed += abs(days) * DAY
            elif what == "step":
                clock.step(days * DAY)
            guard.look()
            if what == "mark":
                marks.append((guard.now(), passed))

        for at, before in marks:
            assert guard.age(at) <= (passed - before) * US + SLACK


class TestStart:
    def test_is_told_again(self) -> None:
        """
        A jump that could not be written down is told at the next look.
        """
        clock, told = FakeClock(), list[tuple[ClockJump, ...]]()

        def keep(guard: tuple[ClockJump, ...]) -> None:
            told.append(guard)
            if len(told) == 1:
                raise OSError

        guard = ClockJumpGuard(clock, on_change=keep)
        clock.step(3650 * DAY)
        with pytest.raises(OSError):  # noqa: PT011 (it has no text)
            guard.look()
        guard.look()
        guard.look()

        assert 2 == len(told)
        assert told[0] == told[1]

    def test_bounded(self) -> None:
        """
        However often the clock guard, 32 spans are kept, and none is forgotten.
        """
        clock = FakeClock()
        guard, at = ClockJumpGuard(clock), clock.now()
        for _ in range(100):
            clock.advance(60)
            clock.step(10 * DAY)
            guard.look()

        assert 32 == len(guard.look())
        assert guard.age(at) <= 100 * 60 * US


class TestLooks:
    def test_once_an_hour(self) -> None:
        """
        It is told when somebody looks, and not more often than it must be.
        """
        clock, looks = FakeClock(), list[int]()
        guard = ClockJumpGuard(clock, on_look=looks.append)
        for _ in range(4):
            guard.look()
            clock.advance(1800)

        assert 2 == len(looks)

    def test_stored_form(self) -> None:
        """
        It is read again where it was not changed.
        """
        stored = encode_look(17, RING.jumps_mac)

        assert 17 == decode_look(stored, RING.jumps_mac)
        assert 0 == decode_look(stored.replace(b"17", b"18"), RING.jumps_mac)
        assert 0 == decode_look(None, RING.jumps_mac)


class TestStoredForm:
    @pytest.mark.parametrize("stored", [None, b"", b"{}", b'{"leaps":[],"mac":""}'])
    def test_of_nothing(self, stored: bytes | None) -> None:
        """
        What is absent or damaged tells nothing.
        """
        assert None is decode_jumps(stored, RING.jumps_mac)

    def test_changed(self) -> None:
        """
        What was changed is not believed.
        """
        stored = encode_jumps((ClockJump(1, 2),), RING.jumps_mac)

        assert None is decode_jumps(stored.replace(b"[1,2]", b"[1,3]"), RING.jumps_mac)


class TestRecords:
    def test_as_they_were(self) -> None:
        """
        The records of jumps, and of clocks set right, tell of all time left out.
        """
        clock, told = FakeClock(), list[tuple[int, int]]()
        guard = ClockJumpGuard(
            clock, on_change=lambda jumps: told.append((clock.now(), seconds_of(jumps)))
        )
        for days in (10, 90, -95, 30, -500, 7):
            clock.advance(60)
            clock.step(days * DAY)
            known = guard.look()

            found = jumps_of(told)
            for jump in known:
                assert any(f.begin <= jump.begin <= jump.end <= f.end for f in found)
            assert seconds_of(found) <= seconds_of(known) + len(told)

    def test_of_several_logs(self) -> None:
        """
        Where one log tells of more than another, all of it is left out.
        """
        one = (ClockJump(5, 9), ClockJump(20, 30))
        other = (ClockJump(6, 7), ClockJump(25, 40), ClockJump(50, 60))

        assert (
            ClockJump(5, 9),
            ClockJump(20, 40),
            ClockJump(50, 60),
        ) == merged([one, other])


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["wait", "step", "seen"]), st.integers(-100_000, 100_000)
        ),
        max_size=20,
    )
)
def test_steady_time(steps: list[tuple[str, int]]) -> None:
    """
    It is never earlier than the clock, nor than before, and passes as time does.
    """
    clock = FakeClock()
    time = SteadyTime(clock)
    latest = time.now()
    for what, seconds in steps:
        if what == "wait":
            clock.advance(abs(seconds))
            assert time.now() >= latest + abs(seconds) * 1_000_000
        elif what == "step":
            clock.step(seconds)
            assert time.now() == max(latest, clock.now())
        else:
            time.seen(latest + seconds * 1_000_000)
            assert time.now() == max(latest, latest + seconds * 1_000_000)
        latest = time.now()
        assert latest >= clock.now()
