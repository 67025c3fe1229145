# SPDX-License-Identifier: MIT
"""
Lockouts after failed authentications, with doubling durations.

Failures count by address, never by a claimed name: otherwise an attacker could lock out
a key or a user.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hsm_server.limits.quota import Quota
from hsm_server.limits.table import BoundedTable

_FIRST_SECONDS: Final = 1.0
_LONGEST_SECONDS: Final = 60.0
_FORGOTTEN_SECONDS: Final = 300.0
_MOST_DOUBLINGS: Final = 10


class _Failures:
    """Failures of an address, and the end of its lockout."""

    __slots__ = ("count", "last", "until")

    def __init__(self) -> None:
        self.count = 0
        self.last = self.until = 0.0


class Lockouts:
    """
    Failure counter that locks out for 1, 2, 4, up to 60 seconds.

    Five minutes without a failure reset the count. During a lockout nothing is
    verified, so nothing can fail.

    Args:
        free: Number of failures without a lockout.

        most: Maximum number of individual counters; see `BoundedTable`.

        clock: Monotonic time, in seconds.
    """

    def __init__(self, free: int, most: int, clock: Callable[[], float]) -> None:
        self._free = free
        self._clock = clock
        self._table = BoundedTable(most, _Failures, _is_forgotten)

    def __len__(self) -> int:
        return len(self._table)

    def refusal(self, key: str) -> Quota | None:
        """Return the reason of a lockout, or None."""
        now, found = self._clock(), self._table.find(key)
        if found.until <= now:
            return None
        wait = found.until - now
        return Quota(
            policy="failures",
            burst=self._free,
            window_seconds=int(_FORGOTTEN_SECONDS),
            remaining=0,
            reset_seconds=int(wait) + 1,
            wait_seconds=wait,
        )

    def fail(self, key: str) -> None:
        """Count one failure."""
        now = self._clock()
        found = self._table.place(key, now)
        if _is_forgotten(found, now):
            found.count = 0
        found.count += 1
        found.last = now
        beyond = found.count - self._free
        if beyond > 0:
            doubled = _FIRST_SECONDS * 2 ** min(beyond - 1, _MOST_DOUBLINGS)
            found.until = now + min(doubled, _LONGEST_SECONDS)


def _is_forgotten(found: _Failures, now: float) -> bool:
    return now - max(found.last, found.until) >= _FORGOTTEN_SECONDS
