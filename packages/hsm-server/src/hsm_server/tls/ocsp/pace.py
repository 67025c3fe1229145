# SPDX-License-Identifier: MIT
"""Time, and back-off of OCSP queries."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from hsm_server.tls.ocsp.response import VerifiedResponse

_FIRST_RETRY: Final = timedelta(seconds=30)
_LONGEST_RETRY: Final = timedelta(hours=1)
_SHORTEST_REFRESH: Final = timedelta(seconds=5)
_JITTER: Final = 0.2
_RANDOM: Final = secrets.SystemRandom()


class Clock(Protocol):
    """Clock interface of this package."""

    def now(self) -> datetime:
        """Return the wall time, in UTC."""

    def seconds(self) -> float:
        """Return seconds of a clock that only runs, from any beginning."""

    async def sleep(self, seconds: float) -> None:
        """Wait; not below zero."""


class SystemClock:
    """Clock of this machine and event loop."""

    def now(self) -> datetime:
        """Return the wall time, in UTC."""
        return datetime.now(UTC)

    def seconds(self) -> float:
        """Return seconds since the machine was started."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait."""
        await asyncio.sleep(seconds)


def until_refresh(
    answer: VerifiedResponse, now: datetime, longest: timedelta
) -> timedelta:
    """
    Return the time until the next query: half of the remaining validity.

    A little less of it by chance, so that not all servers of a CA ask at once. That
    leaves half of the time to try again.

    Args:
        answer: Good.

        now: In UTC.

        longest: Not longer than that.
    """
    half = min((answer.expires_at - now) / 2, longest)
    return max(half * _RANDOM.uniform(1 - _JITTER, 1), _SHORTEST_REFRESH)


class Retries:
    """Back-off of 30 seconds, doubled after each failure, up to an hour."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Reset the back-off after a success."""
        self._next = _FIRST_RETRY

    def after_failure(self, longest: timedelta) -> timedelta:
        """Return the delay, with 20 % jitter."""
        wait = min(self._next, longest)
        self._next = min(self._next * 2, _LONGEST_RETRY)
        return wait * _RANDOM.uniform(1 - _JITTER, 1 + _JITTER)


async def first_of(*waits: Coroutine[Any, Any, object]) -> None:
    """Wait until one of them is done, and give up the others."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
