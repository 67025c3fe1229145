# SPDX-License-Identifier: MIT
"""Recent events, shown although they may be over."""

from __future__ import annotations

from typing import Final

from hsm_core.protocols import Clock

_SECONDS: Final = 10.0


class RecentEvent:
    """
    Remembers an event for 10 s. Thread-safe.

    Args:
        clock: Time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until = float("-inf")

    def note(self) -> None:
        """Note the event."""
        self._until = self._clock.monotonic() + _SECONDS

    def forget(self) -> None:
        """Clear the event."""
        self._until = float("-inf")

    def __bool__(self) -> bool:
        return self._clock.monotonic() < self._until
