# SPDX-License-Identifier: MIT
"""Time and chance that a test has in its hand."""

from __future__ import annotations

import hashlib
import threading

__all__ = [
    "FakeClock",
    "FakeEntropy",
]


class FakeClock:
    """
    A clock that moves only when told to.

    Args:
        now: Microseconds since 1970 to begin at.
    """

    def __init__(self, now: int = 1_750_000_000_000_000) -> None:
        self._now = now
        self._monotonic = 0.0

    def now(self) -> int:
        """Return wall time, in microseconds since 1970-01-01T00:00:00Z."""
        return self._now

    def monotonic(self) -> float:
        """Return a time that never goes back, in seconds."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let time pass on both clocks; *seconds* is 0 or more."""
        self._now += int(seconds * 1_000_000)
        self._monotonic += seconds

    def step(self, seconds: float) -> None:
        """Set the wall clock forwards or backwards, as an administrator may."""
        self._now += int(seconds * 1_000_000)


class FakeEntropy:
    """
    Bytes that a seed determines, for tests that must repeat exactly. Never for keys.

    Args:
        seed: What determines them.
    """

    def __init__(self, seed: int = 0) -> None:
        self._state = seed.to_bytes(16, "big")
        self._counter = 0
        self._lock = threading.Lock()

    def random_bytes(self, length: int, /) -> bytes:
        """Return the next *length* bytes."""
        with self._lock:
            self._counter += 1
            block = self._state + self._counter.to_bytes(8, "big")
        return hashlib.shake_256(block).digest(length)
