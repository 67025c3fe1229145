# SPDX-License-Identifier: MIT
"""Wall time that never goes back, for the expiry of tokens."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["FlooredClock"]


class FlooredClock:
    """
    Seconds since 1970 that advance at least as fast as the monotonic clock.

    A wall clock that is set back would make expired tokens valid again; here the time
    already seen stays the floor. One that is set forward is believed.

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
