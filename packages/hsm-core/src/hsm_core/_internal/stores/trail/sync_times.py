# SPDX-License-Identifier: MIT
"""Histogram of audit log sync times."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from typing import Final

from hsm_core.operations import SyncTimes

SYNC_BOUNDS_SECONDS: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
"""From memory that calls itself a disk to a disk that is about to fail."""


class SyncClock:
    """Counts syncs by how long they took. One thread counts, any thread may look."""

    def __init__(self) -> None:
        self._counts = [0] * (len(SYNC_BOUNDS_SECONDS) + 1)
        self._seconds = 0.0

    def count(self, seconds: float) -> None:
        """Count one sync."""
        self._counts[bisect_left(SYNC_BOUNDS_SECONDS, seconds)] += 1
        self._seconds += seconds

    def times(self) -> SyncTimes:
        """Return what was counted."""
        sums = list(accumulate(self._counts))
        return SyncTimes(
            count=sums[-1],
            seconds=self._seconds,
            bounds_seconds=SYNC_BOUNDS_SECONDS,
            within=tuple(sums[:-1]),
        )
