# SPDX-License-Identifier: MIT
"""
Token buckets, one per caller.

A bucket is one number, the instant at which it is full again (GCRA, the generic cell
rate algorithm of ITU-T I.371). So a full bucket equals a new one and need not be
stored.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from hsm_server.limits.quota import Quota
from hsm_server.limits.table import BoundedTable

_ROUNDING: Final = 1e-6
"""Tolerance for sums of many small steps, in seconds."""


@dataclass(frozen=True, slots=True)
class Rate:
    """
    Rate and burst of a limit.

    Attributes:
        per_second: Refill per second; more than 0.
        burst: Capacity; at least 1.
    """

    per_second: float
    burst: int


class _Bucket:
    """Bucket that is full from *full_at* on."""

    __slots__ = ("full_at",)

    def __init__(self) -> None:
        self.full_at = -math.inf


class Buckets:
    """
    Token buckets of all callers.

    A request that costs more than the capacity needs a full bucket, and leaves it in
    debt, so that large requests are not cheaper.

    Args:
        policy: Name of the limit, in header fields.

        rate: Rate of each bucket.

        most: Maximum number of individual buckets; see `BoundedTable`.

        clock: Monotonic time, in seconds.
    """

    def __init__(
        self, policy: str, rate: Rate, most: int, clock: Callable[[], float]
    ) -> None:
        self._policy = policy
        self._rate = rate
        self._clock = clock
        self._table = BoundedTable(most, _Bucket, lambda b, now: b.full_at <= now)

    def __len__(self) -> int:
        return len(self._table)

    def take(self, key: str, cost: int = 1) -> Quota:
        """
        Spend *cost*, if that may be; what is refused costs nothing.

        Args:
            key: Whose bucket.

            cost: At least 1.

        Returns:
            What is left. Its ``wait_seconds`` are more than 0 where it was refused.
        """
        now = self._clock()
        bucket = self._table.place(key, now)
        if refused := self._refused(bucket, now, cost):
            return refused
        bucket.full_at = max(bucket.full_at, now) + cost / self._rate.per_second
        return self._quota(bucket.full_at - now, 0.0)

    def refusal(self, key: str) -> Quota | None:
        """Return why 1 can't be spent now, or None if it can; it costs nothing."""
        return self._refused(self._table.find(key), self._clock(), 1)

    def _refused(self, bucket: _Bucket, now: float, cost: int) -> Quota | None:
        full_at, rate = max(bucket.full_at, now), self._rate
        # From which instant on it holds enough.
        enough_at = full_at - (rate.burst - min(cost, rate.burst)) / rate.per_second
        if enough_at - now > _ROUNDING:
            return self._quota(full_at - now, enough_at - now)
        return None

    def _quota(self, until_full: float, wait: float) -> Quota:
        rate = self._rate
        remaining = math.floor(rate.burst - (until_full - _ROUNDING) * rate.per_second)
        return Quota(
            policy=self._policy,
            burst=rate.burst,
            window_seconds=max(1, math.ceil(rate.burst / rate.per_second)),
            remaining=max(0, remaining),
            reset_seconds=math.ceil(until_full - _ROUNDING),
            wait_seconds=wait,
        )
