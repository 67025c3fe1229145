# SPDX-License-Identifier: MIT
"""Time that only the simulation moves, and recurring work that only it does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hsm_core._internal.lib.concurrency import BackgroundWorker, Task
from hsm_core.errors import HSMError

_AT_ONCE: Final = 1.0
"""A step that asks to go on sooner than this is still the same piece of work."""

_MOST_STEPS: Final = 1000
YEAR: Final = 365 * 24 * 3600


class Time:
    """
    The clocks of the machine.

    Attributes:
        passed: Seconds that really passed, which no clock of the machine shows.
    """

    def __init__(self, now: int) -> None:
        self._wall = now
        self._monotonic = 0.0
        self.passed = 0.0

    def now(self) -> int:
        """Return wall time, in microseconds since 1970-01-01T00:00:00Z."""
        return self._wall

    def monotonic(self) -> float:
        """Return seconds since the machine was started."""
        return self._monotonic

    def go_on(self, seconds: float) -> None:
        """Let time pass."""
        self._wall += int(seconds * 1_000_000)
        self._monotonic += seconds
        self.passed += seconds

    def step(self, seconds: float) -> None:
        """Set the wall clock wrong, or right again; no time passes."""
        self._wall += int(seconds * 1_000_000)

    def start_anew(self, off: float = 0.0) -> None:
        """Start the machine after it was off; its monotonic clock begins at 0."""
        self._wall += int(off * 1_000_000)
        self.passed += off
        self._monotonic = 0.0


@dataclass(slots=True)
class _Work:
    seconds: float
    task: Task
    due: float


class SteppedCaretaker(BackgroundWorker):
    """
    A worker without a thread: its work is done when `work` is called.

    Args:
        time: Tells what is due.
    """

    def __init__(self, time: Time) -> None:
        super().__init__()
        self._time = time
        self._works: list[_Work] = []
        self._has_ended = False

    def every(self, seconds: float, task: Task, *, first: float = 0.0) -> None:
        """See `BackgroundWorker.every`."""
        self._works.append(_Work(seconds, task, self._time.monotonic() + first))

    def hurry(self) -> None:
        """See `BackgroundWorker.hurry`."""
        for work in self._works:
            work.due = self._time.monotonic()

    def start(self) -> None:
        """Do nothing: there is no thread."""

    def stop(self, timeout_seconds: float) -> None:
        """Do nothing any more."""
        self._has_ended = True

    def work(self) -> None:
        """
        Do what is due, each piece of work once, to its end.

        Raises:
            Exception: A task raised what is no `HSMError`, which it must not.
        """
        for work in list(self._works):
            if work.due <= self._time.monotonic() and not self._has_ended:
                work.due = self._time.monotonic() + self._do(work)

    def _do(self, work: _Work) -> float:
        for _ in range(_MOST_STEPS):
            try:
                seconds = work.task()
            except HSMError:
                return work.seconds
            if seconds is None or seconds >= _AT_ONCE:
                return work.seconds if seconds is None else seconds
        raise AssertionError("a task never comes to the end of its work")
