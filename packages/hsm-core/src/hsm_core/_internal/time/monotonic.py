# SPDX-License-Identifier: MIT
"""
Steady time: never goes back, so that expired things stay expired.

It follows the wall clock forwards. When that is set back, it goes on from the latest
instant known, at the pace of the monotonic clock.
"""

from __future__ import annotations

import threading

from hsm_core.protocols import Clock


class SteadyTime:
    """
    Time for expiry checks. Thread-safe.

    Args:
        clock: The wall clock and the monotonic one.

        floor: Earliest possible time, in microseconds since 1970.
    """

    def __init__(self, clock: Clock, floor: int = 0) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._latest = floor
        self._at = self._began = clock.monotonic()

    def __repr__(self) -> str:
        return "<SteadyTime>"

    def now(self) -> int:
        """Return microseconds since 1970, never fewer than before."""
        with self._lock:
            return self._advance(0)

    def seen(self, instant: int) -> None:
        """Note an instant known to have passed."""
        with self._lock:
            self._advance(instant)

    def passed(self) -> int:
        """Return how many microseconds the monotonic clock has counted so far."""
        return int((self._clock.monotonic() - self._began) * 1_000_000)

    def _advance(self, instant: int) -> int:
        at = self._clock.monotonic()
        passed = max(0, int((at - self._at) * 1_000_000))
        self._latest = max(self._clock.now(), self._latest + passed, instant)
        self._at = at
        return self._latest
