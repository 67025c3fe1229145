# SPDX-License-Identifier: MIT
"""
Time limit for all waits of one task for a database that has gone silent.

A request waits for its database several times: for a connection, for statements, for
its audit record, and for locks of tasks that wait themselves. While the database
answers anybody in this process, each wait has its own limit. Once it has answered
nobody for `PATIENCE_SECONDS`, all waits of a task that is older than that end together.

A node asks its database several times a second, so that silence is the database's.

While a store is opened nobody is served: then waits for its disk may last longer, too.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

PATIENCE_SECONDS: Final = 1.7
"""Seconds of silence that a task waits; a request has two for its answer."""
MOMENT_SECONDS: Final = 0.1
"""Time that each wait has at least: a process that was paused finds the other over."""

_OPENING_SECONDS: Final = 30.0
"""Opening a store may take so long where disk or database is slow: nobody is served."""


class _Mine(threading.local):
    """
    State of one thread, in instants of ``time.monotonic()``.

    Attributes:
        began: When its task began; None outside of one.
        opens_until: How long it may take to open a store.
    """

    began: float | None = None
    opens_until = float("-inf")


class _Database:
    """Instant of ``time.monotonic()`` at which a database answered last."""

    answered_at = float("-inf")


_mine = _Mine()


@contextmanager
def task(began: float | None = None) -> Iterator[None]:
    """
    Limit all waits of this thread in a ``with`` block; within another, nothing changes.

    Args:
        began: Instant of ``time.monotonic()``, such as the arrival of a request that
            has waited for a thread; None is now.
    """
    if _mine.began is not None:
        yield
        return
    _mine.began = time.monotonic() if began is None else began
    try:
        yield
    finally:
        _mine.began = None


@contextmanager
def opening() -> Iterator[float]:
    """
    Let each wait of this thread in a ``with`` block last until half a minute is over.

    It gives the instant of ``time.monotonic()`` at which it will be.
    """
    before = _mine.opens_until
    _mine.opens_until = time.monotonic() + _OPENING_SECONDS
    try:
        yield _mine.opens_until
    finally:
        _mine.opens_until = before


def is_opening() -> bool:
    """Return whether this thread opens a store and still may."""
    return time.monotonic() < _mine.opens_until


def note_answer() -> None:
    """Note that a database has just answered."""
    _Database.answered_at = time.monotonic()


def seconds_left() -> float:
    """Return how long this thread may wait; infinite outside of a task."""
    began = _mine.began
    if began is None:
        return float("inf")
    since = max(began, _Database.answered_at)
    return since + PATIENCE_SECONDS - time.monotonic()


def pauses(limit: float) -> Iterator[float]:
    """
    Return how long to wait each time, until a limit or the task's patience is over.

    The last wait takes a moment, even if both are over from the start.

    Args:
        limit: Seconds for this wait, however much the database answers others.
    """
    ends = max(time.monotonic() + limit, _mine.opens_until)
    while (seconds := min(ends - time.monotonic(), seconds_left())) > 0:
        yield seconds
    yield MOMENT_SECONDS
