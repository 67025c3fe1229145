# SPDX-License-Identifier: MIT
"""What has happened lately, and is to be shown although it may be over."""

from __future__ import annotations

from typing import Final

from hsm_core.protocols import Clock

_SECONDS: Final = 10.0


class Lately:
    """
    Remembers for 10 s that something happened. Safe for many threads.

    Args:
        clock: Time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until = float("-inf")

    def note(self) -> None:
        """It has just happened."""
        self._until = self._clock.monotonic() + _SECONDS

    def forget(self) -> None:
        """It is over."""
        self._until = float("-inf")

    def __bool__(self) -> bool:
        return self._clock.monotonic() < self._until
