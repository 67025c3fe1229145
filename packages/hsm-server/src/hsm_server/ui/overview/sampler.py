# SPDX-License-Identifier: MIT
"""Sampled rates of the server's figures."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from hsm_server.observability.metrics import Figures

PERIOD_SECONDS: Final = 2.0
"""Minimum interval between two reads of the figures, shared by all viewers."""

_MOST_RATES: Final = 60
_MAX_GAP_SECONDS: Final = 30.0
_LIVE: Final = "live_view"


@dataclass(frozen=True, slots=True)
class OperationRate:
    """
    Rates between two samples.

    Attributes:
        per_second: Operations per second.
        milliseconds: Mean latency; 0 without operations.
    """

    per_second: float
    milliseconds: float


@dataclass(frozen=True, slots=True)
class _Sample:
    at: float
    operations: int
    timed: int
    busy_seconds: float


class FigureSampler:
    """
    Sampler of the server's figures, shared by all viewers.

    Args:
        snapshot: Reads the figures. It may block and is called in a thread.

        monotonic: Monotonic clock, in seconds.
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
        self._last: _Sample | None = None
        self._rates: deque[OperationRate] = deque(maxlen=_MOST_RATES)

    @property
    def rates(self) -> Sequence[OperationRate]:
        """Rates of the last two minutes, newest last."""
        return tuple(self._rates)

    async def look(self) -> Figures:
        """Return figures no older than `PERIOD_SECONDS`."""
        async with self._lock:
            now = self._monotonic()
            if (
                self._figures is None
                or self._last is None
                or now - self._last.at >= PERIOD_SECONDS
            ):
                self._figures = await asyncio.to_thread(self._snapshot)
                self._note(_sample(self._figures, now))
            return self._figures

    def _note(self, sample: _Sample) -> None:
        last, self._last = self._last, sample
        if last is None:
            return
        if sample.at - last.at > _MAX_GAP_SECONDS:
            # No samples in between: the chart starts again.
            self._rates.clear()
            return
        self._rates.append(_rate(last, sample))


def _sample(figures: Figures, now: float) -> _Sample:
    operations = sum(figures.operations.values())
    # A live view's duration is not latency.
    timed = operations - figures.operations.get(_LIVE, 0)
    return _Sample(now, operations, timed, figures.mean_seconds * timed)


def _rate(last: _Sample, sample: _Sample) -> OperationRate:
    timed = sample.timed - last.timed
    busy = max(0.0, sample.busy_seconds - last.busy_seconds)
    return OperationRate(
        per_second=max(0, sample.operations - last.operations) / (sample.at - last.at),
        milliseconds=busy / timed * 1000 if timed > 0 else 0.0,
    )


SAMPLER: Final = web.AppKey("SAMPLER", FigureSampler)
"""Application key of the sampler."""
