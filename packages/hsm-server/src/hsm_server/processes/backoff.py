# SPDX-License-Identifier: MIT
"""Delay before the restart of a process."""

from __future__ import annotations

from typing import Final

_FIRST_SECONDS: Final = 0.05
_LONGEST_SECONDS: Final = 10.0
_STABLE_SECONDS: Final = 1.0


class Backoff:
    """Exponential back-off up to 10 s; resets after a longer run."""

    def __init__(self) -> None:
        self._seconds = _FIRST_SECONDS

    def after(self, ran_seconds: float) -> float:
        """
        Return the delay in seconds.

        Args:
            ran_seconds: How long the process was at work, without its start.
        """
        if ran_seconds >= _STABLE_SECONDS:
            self._seconds = _FIRST_SECONDS
        wait = self._seconds
        self._seconds = min(_LONGEST_SECONDS, wait * 2)
        return wait
