# SPDX-License-Identifier: MIT
"""Time as the API shows it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from hsm_core._internal.time.clock import SystemClock, instant
from hsm_core.session import Session
from hsm_core.testing import FakeClock, caller, memory_hsm


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


def test_the_system_clock_moves() -> None:
    """Both times go on."""
    clock = SystemClock()

    assert clock.now() <= clock.now()
    assert clock.monotonic() <= clock.monotonic()
