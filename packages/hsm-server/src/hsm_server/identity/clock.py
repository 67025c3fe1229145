# SPDX-License-Identifier: MIT
"""Monotonic wall time, for token expiry."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from hsm_server.observability.logs import Logger
from hsm_server.observability.metrics import Metrics

_BEHIND_SECONDS: Final = 60.0
"""Minimum clock difference for an alarm."""

_LOOK_SECONDS: Final = 5.0


class FlooredClock:
    """
    Seconds since 1970 that advance at least as fast as the monotonic clock.

    A wall clock set back would make expired tokens valid again, so the time already
    seen is the minimum. A clock set forward is followed.

    Args:
        wall: Seconds since 1970.

        monotonic: Seconds since any instant.
    """

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._offset = wall() - monotonic()

    def now(self) -> float:
        """Return the time, in seconds since 1970."""
        monotonic = self._monotonic()
        self._offset = max(self._offset, self._wall() - monotonic)
        return monotonic + self._offset

    def behind(self) -> float:
        """Return by how many seconds the wall clock is behind this one, 0 or more."""
        return max(0.0, self.now() - self._wall())

    def reset(self) -> None:
        """Accept the wall clock, even if it was set back."""
        self._offset = self._wall() - self._monotonic()


class ClockWatch:
    """
    Clock watch: reports a wall clock behind the time used for token expiry.

    Args:
        clock: Time used for token expiry.

        on_reset: Called after the clock was reset.

        metrics: Show the difference to the wall clock.

        logger: Logs a difference of a minute or more, and its end.
    """

    def __init__(
        self,
        clock: FlooredClock,
        on_reset: Callable[[], None],
        metrics: Metrics,
        logger: Logger,
    ) -> None:
        self._clock = clock
        self._on_reset = on_reset
        self._metrics = metrics
        self._logger = logger
        self._is_behind = False
        self.look()

    def look(self) -> None:
        """Compare the clocks once."""
        behind = self._clock.behind()
        self._metrics.show_clock_behind(behind)
        is_behind = behind >= _BEHIND_SECONDS
        if is_behind and not self._is_behind:
            self._logger.error("clock behind", reason=_reason(behind))
        elif self._is_behind and not is_behind:
            self._logger.info("clock in step")
        self._is_behind = is_behind

    async def run(self) -> None:
        """Compare the clocks every few seconds until cancelled."""
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            self.look()

    def reset(self) -> None:
        """Use the current wall clock for token expiry."""
        behind = self._clock.behind()
        self._clock.reset()
        self._on_reset()
        self._logger.warning("clock reset", reason=_reason(behind))
        self.look()


def _reason(behind: float) -> str:
    return f"The wall clock is {behind:.0f} s behind the time used for token expiry."
