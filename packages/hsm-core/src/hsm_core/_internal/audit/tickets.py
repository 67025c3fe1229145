# SPDX-License-Identifier: MIT
"""Groups of records that are synced together, their tickets, and sync times."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Final

from hsm_core._internal.audit.head_mark import HeadMark
from hsm_core.errors import AuditUnavailableError
from hsm_core.operations import SyncTimes

SYNC_BOUNDS_SECONDS: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
"""From memory that calls itself a disk to a disk that is about to fail."""


class Ticket:
    """
    The ticket that every append of a group shares.

    Args:
        timeout_seconds: How long `wait` waits if it isn't told.
    """

    __slots__ = ("_callbacks", "_done", "_error", "_guard", "_timeout", "_waiters")

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout = timeout_seconds
        self._guard = threading.Lock()
        self._done = False
        self._error: BaseException | None = None
        self._waiters: list[threading.Lock] = []
        self._callbacks: list[Callable[[BaseException | None], None]] = []

    def wait(self, timeout: float | None = None) -> None:
        """
        Block until the records are as durable as the mode says.

        Args:
            timeout: In seconds; None is the log's own limit.

        Raises:
            AuditUnavailableError: They can't be written, or not within the limit.
        """
        # A bare lock for each waiter costs a third of what `threading.Event` does.
        waiter = threading.Lock()
        waiter.acquire()
        with self._guard:
            if not self._done:
                self._waiters.append(waiter)
            done = self._done
        if not done:
            limit = self._timeout if timeout is None else max(timeout, 0)
            if not waiter.acquire(timeout=limit):
                raise AuditUnavailableError("The audit log was not written in time.")
        error = self._error
        if error is not None:
            is_ours = isinstance(error, AuditUnavailableError)
            raise AuditUnavailableError(str(error) if is_ours else "") from error

    def add_done_callback(
        self, callback: Callable[[BaseException | None], None], /
    ) -> None:
        """Call *callback* once, here or from the writing thread; it must not raise."""
        with self._guard:
            if not self._done:
                self._callbacks.append(callback)
                return
        callback(self._error)

    def complete(self, error: BaseException | None = None) -> None:
        """Mark the records as durable, or as lost; only the first time counts."""
        with self._guard:
            if self._done:
                return
            self._error = error
            self._done = True
        for waiter in self._waiters:
            waiter.release()
        for callback in self._callbacks:
            # The writing thread must outlive a callback that breaks its promise.
            with suppress(Exception):
                callback(error)
        self._waiters.clear()
        self._callbacks.clear()


@dataclass(slots=True)
class Group:
    """
    Records that go to the disk together.

    Attributes:
        written: Done when they are written.
        synced: Done when they are durable.
        must_sync: Somebody waits for the sync.
        is_lazy: Nobody cares when it is synced.
        mark: The state of the log after them; set when the group is taken.
    """

    written: Ticket
    synced: Ticket
    lines: list[bytes] = field(default_factory=list)
    size: int = 0
    must_sync: bool = False
    is_lazy: bool = True
    mark: HeadMark = field(default_factory=HeadMark)

    def add(self, lines: list[bytes]) -> None:
        """Add the lines of one append."""
        self.lines += lines
        self.size += sum(map(len, lines))

    def complete(self, error: BaseException | None = None) -> None:
        """Complete both tickets."""
        self.written.complete(error)
        self.synced.complete(error)


class SyncClock:
    """Counts syncs by how long they took. One thread counts, any thread may look."""

    def __init__(self) -> None:
        self._counts = [0] * (len(SYNC_BOUNDS_SECONDS) + 1)
        self._seconds = 0.0

    def count(self, seconds: float) -> None:
        """Count one sync."""
        self._counts[bisect_left(SYNC_BOUNDS_SECONDS, seconds)] += 1
        self._seconds += seconds

    def times(self) -> SyncTimes:
        """Return what was counted."""
        sums = list(accumulate(self._counts))
        return SyncTimes(
            count=sums[-1],
            seconds=self._seconds,
            bounds_seconds=SYNC_BOUNDS_SECONDS,
            within=tuple(sums[:-1]),
        )
