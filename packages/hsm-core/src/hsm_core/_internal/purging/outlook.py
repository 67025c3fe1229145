# SPDX-License-Identifier: MIT
"""What time it is for retention: what the clock leapt over does not count."""

from __future__ import annotations

from hsm_core._internal.leaps import Leaps
from hsm_core.protocols import Clock

__all__ = ["KnownTime"]


class KnownTime:
    """
    Time as it is known to have passed.

    Args:
        clock: The wall clock.

        leaps: What it leapt over.
    """

    def __init__(self, clock: Clock, leaps: Leaps) -> None:
        self._clock = clock
        self._leaps = leaps

    def wall(self) -> int:
        """Return what the wall clock says, microseconds since 1970."""
        return self._clock.now()

    def since(self, at: int, allowed: int) -> int:
        """
        Return what time it is for something that began at *at*.

        Args:
            at: Microseconds since 1970.

            allowed: Leaps that ended before this instant count as time.

        Returns:
            Microseconds since 1970, not after what the wall clock says.
        """
        wall = self._clock.now()
        uncounted = sum(
            max(0, min(leap.end, wall) - max(leap.begin, at))
            for leap in self._leaps.look()
            if leap.end > allowed
        )
        return wall - uncounted
