# SPDX-License-Identifier: MIT
"""How much the server does, sampled while somebody looks at it."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from hsm_server.observability.telemetry.figures import Figures

PERIOD_SECONDS: Final = 2.0
"""How often the figures are read at most, however many people look at them."""

_MOST_RATES: Final = 60
_FORGOTTEN_SECONDS: Final = 30.0
_LIVE: Final = "live_view"


@dataclass(frozen=True, slots=True)
class Rate:
    """
    What was done between two samples.

    Attributes:
        per_second: Operations.
        milliseconds: How long one took on average; 0 where there was none.
    """

    per_second: float
    milliseconds: float


@dataclass(frozen=True, slots=True)
class _Beat:
    at: float
    operations: int
    timed: int
    busy_seconds: float


class Pulse:
    """
    Samples the figures, for all who look at them together.

    Args:
        snapshot: Reads the figures; it may block, and is called in a thread.

        monotonic: Seconds since any instant.
    """

    def __init__(
        self,
        snapshot: Callable[[], Figures],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._snapshot = snapshot
        self._monotonic = monotonic
        self._lock = asyncio.Lock()
        self._figures: Figures | None = None
        self._last: _Beat | None = None
        self._rates: deque[Rate] = deque(maxlen=_MOST_RATES)

    @property
    def rates(self) -> Sequence[Rate]:
        """What was done in the last two minutes, the newest last."""
        return tuple(self._rates)

    async def look(self) -> Figures:
        """Return figures that are not older than the period."""
        async with self._lock:
            now = self._monotonic()
            if (
                self._figures is None
                or self._last is None
                or now - self._last.at >= PERIOD_SECONDS
            ):
                self._figures = await asyncio.to_thread(self._snapshot)
                self._note(_beat(self._figures, now))
            return self._figures

    def _note(self, beat: _Beat) -> None:
        last, self._last = self._last, beat
        if last is None:
            return
        if beat.at - last.at > _FORGOTTEN_SECONDS:
            # Nobody looked meanwhile: a line across that time would say nothing.
            self._rates.clear()
            return
        self._rates.append(_rate(last, beat))


def _beat(figures: Figures, now: float) -> _Beat:
    operations = sum(figures.operations.values())
    # A live view takes as long as somebody watches it.
    timed = operations - figures.operations.get(_LIVE, 0)
    return _Beat(now, operations, timed, figures.mean_seconds * timed)


def _rate(last: _Beat, beat: _Beat) -> Rate:
    timed = beat.timed - last.timed
    busy = max(0.0, beat.busy_seconds - last.busy_seconds)
    return Rate(
        per_second=max(0, beat.operations - last.operations) / (beat.at - last.at),
        milliseconds=busy / timed * 1000 if timed > 0 else 0.0,
    )


PULSE: Final = web.AppKey("PULSE", Pulse)
"""Where the application keeps it."""
