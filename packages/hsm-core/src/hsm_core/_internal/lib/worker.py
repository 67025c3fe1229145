# SPDX-License-Identifier: MIT
"""Recurring work in the background, on one thread: small steps, one after the other."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeAlias

Task: TypeAlias = Callable[[], float | None]
"""
Does a step of its work; returns after how many seconds the next one is due, or None
for the usual time.
"""

_IDLE_SECONDS: Final = 3600.0
_LONGEST_SECONDS: Final = 1e9


@dataclass(slots=True)
class _Job:
    seconds: float
    task: Task
    due: float
    is_hurried: bool = False


class Caretaker:
    """
    A daemon thread that does each task again and again, until it is stopped.

    What a task raises is counted, and the task goes on at its next time.

    Attributes:
        failures: How often a task raised.
    """

    def __init__(self) -> None:
        self._jobs: list[_Job] = []
        self._changed = threading.Condition()
        self._is_stopped = False
        self._process = os.getpid()
        self._thread: threading.Thread | None = None
        self.failures = 0

    def every(self, seconds: float, task: Task, *, first: float = 0.0) -> None:
        """
        Do a task every so many seconds.

        Args:
            seconds: From the end of a step to the begin of the next, where the task
                doesn't say otherwise.

            task: Takes little time, because all others wait for it.

            first: Seconds until it is first done.
        """
        with self._changed:
            self._jobs.append(_Job(seconds, task, time.monotonic() + first))
            self._changed.notify()

    def hurry(self) -> None:
        """Do every task once more now, also one that is under way."""
        with self._changed:
            for job in self._jobs:
                job.due, job.is_hurried = time.monotonic(), True
            self._changed.notify()

    def start(self) -> None:
        """Begin."""
        thread = threading.Thread(target=self._run, name="hsm-core-care", daemon=True)
        self._thread = thread
        thread.start()

    def stop(self, timeout_seconds: float) -> None:
        """Begin no step any more, and wait for the one that is under way."""
        if os.getpid() != self._process:
            return
        with self._changed:
            self._is_stopped = True
            self._changed.notify()
        if self._thread is not None:
            self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while (job := self._next()) is not None:
            again: float | None = None
            try:
                again = job.task()
            except Exception:
                # It is tried again; whoever needs the work done finds out themselves.
                self.failures += 1
            seconds = job.seconds if again is None else again
            with self._changed:
                if not job.is_hurried:
                    # No number may end the thread, on which healing depends.
                    job.due = time.monotonic() + min(seconds, _LONGEST_SECONDS)

    def _next(self) -> _Job | None:
        with self._changed:
            while not self._is_stopped:
                job = min(self._jobs, key=lambda job: job.due, default=None)
                left = job.due - time.monotonic() if job else _IDLE_SECONDS
                if job is not None and left <= 0:
                    job.is_hurried = False
                    return job
                self._changed.wait(min(left, _IDLE_SECONDS))
            return None
