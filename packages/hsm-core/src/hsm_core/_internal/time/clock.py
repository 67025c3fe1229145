# SPDX-License-Identifier: MIT
"""System clock, steady time, and timestamps in the form of the API."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Final

from hsm_core.protocols import Clock

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST: Final = datetime.min.replace(tzinfo=UTC)
_LATEST: Final = datetime.max.replace(tzinfo=UTC)


class SystemClock:
    """Clock of the operating system."""

    def now(self) -> int:
        """Return wall time, in microseconds since 1970-01-01T00:00:00Z."""
        return time.time_ns() // 1000

    monotonic = staticmethod(time.monotonic)


def microseconds(when: datetime) -> int:
    """Return microseconds since 1970-01-01T00:00:00Z of an aware datetime."""
    return (when - _EPOCH) // timedelta(microseconds=1)


def utc_text(when: datetime) -> str:
    """Return an aware datetime as text, in UTC (RFC 3339)."""
    return when.astimezone(UTC).isoformat().removesuffix("+00:00") + "Z"


def instant(microseconds: int) -> datetime:
    """Return the aware UTC datetime of a stored time, within the years 1 to 9999."""
    try:
        return _EPOCH + timedelta(microseconds=microseconds)
    except OverflowError:
        return _EARLIEST if microseconds < 0 else _LATEST


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
