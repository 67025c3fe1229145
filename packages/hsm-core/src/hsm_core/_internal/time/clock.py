# SPDX-License-Identifier: MIT
"""System clock, and timestamps in the form of the API."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EARLIEST: Final = datetime.min.replace(tzinfo=UTC)
_LATEST: Final = datetime.max.replace(tzinfo=UTC)


class SystemClock:
    """Clock of the operating system."""

    def now(self) -> int:
        """Return wall time, in microseconds since 1970-01-01T00:00:00Z."""
        return time.time_ns() // 1000

    def monotonic(self) -> float:
        """Return a time that never goes back, in seconds."""
        return time.monotonic()


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
