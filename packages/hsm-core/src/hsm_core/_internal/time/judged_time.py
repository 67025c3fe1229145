# SPDX-License-Identifier: MIT
"""Retention time: wall time without clock jumps."""

from __future__ import annotations

from hsm_core._internal.time.clock_jumps import ClockJumpGuard


class RetentionTime:
    """
    Time without clock jumps.

    Args:
        leaps: Clock-jump guard.
    """

    def __init__(self, leaps: ClockJumpGuard) -> None:
        self._leaps = leaps

    def wall(self) -> int:
        """
        Return the wall time, or a later instant while the clock is behind.

        In microseconds since 1970; see `ClockJumpGuard.now`.
        """
        return self._leaps.now()

    def since(self, at: int, allowed: int) -> int:
        """
        Return the current time for something that began at *at*.

        Args:
            at: Microseconds since 1970.

            allowed: Leaps that ended before this instant count as time.

        Returns:
            Microseconds since 1970, not after `wall`.
        """
        wall = self.wall()
        uncounted = sum(
            max(0, min(leap.end, wall) - max(leap.begin, at))
            for leap in self._leaps.look()
            if leap.end > allowed
        )
        return wall - uncounted
