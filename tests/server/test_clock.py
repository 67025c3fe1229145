# SPDX-License-Identifier: MIT
"""Time for tokens never goes back."""

from hsm_server.clock import FlooredClock


class Times:
    """Two clocks that a test sets."""

    def __init__(self) -> None:
        self.wall, self.monotonic = 1000.0, 50.0


def test_a_clock_set_back_changes_nothing() -> None:
    """An expired token does not become valid again."""
    times = Times()
    clock = FlooredClock(lambda: times.wall, lambda: times.monotonic)
    times.wall, times.monotonic = 1010.0, 60.0
    assert 1010.0 == clock.now()
    times.wall, times.monotonic = 1010.0 - 3600, 65.0

    assert 1015.0 == clock.now()


def test_a_clock_set_forward_is_believed() -> None:
    """Tokens expire by the time that it is."""
    times = Times()
    clock = FlooredClock(lambda: times.wall, lambda: times.monotonic)
    times.wall = 5000.0
    assert 5000.0 == clock.now()
    times.wall, times.monotonic = 1020.0, 70.0

    assert 5020.0 == clock.now()


def test_the_default_is_the_system() -> None:
    """Without arguments it is the machine's time."""
    assert FlooredClock().now() > 1_700_000_000
