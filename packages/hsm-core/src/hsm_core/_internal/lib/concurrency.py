# SPDX-License-Identifier: MIT
"""Threads: admission gate, named locks and background worker."""

from __future__ import annotations

import _thread
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import TracebackType
from typing import Final, TypeAlias

import msgspec

from hsm_core._internal.lib.process import OpeningProcess
from hsm_core.errors import UnavailableError


class Gate:
    """Admission gate for operations. Thread-safe."""

    def __init__(self) -> None:
        # Adding to a list and taking from it are atomic; a lock would cost more.
        self._inside = list[None]()
        self._is_closed = False
        self._changed = threading.Condition()
        self._process = OpeningProcess()

    @contextmanager
    def passage(self) -> Iterator[None]:
        """
        Hold a passage for the duration of a ``with`` block.

        Raises:
            UnavailableError: See `enter`.
        """
        self.enter()
        try:
            yield
        finally:
            self.leave()

    def enter(self) -> None:
        """
        Hold a passage until `leave`.

        Raises:
            UnavailableError: The gate is closed, or belongs to the parent process.
        """
        if not self._process.mark[0]:
            raise UnavailableError(
                "The HSM was opened by the parent process; open it again in this one."
            )
        self._inside.append(None)
        if self._is_closed:
            self.leave()
            raise UnavailableError("The HSM is closed.")

    def leave(self) -> None:
        """Release a passage."""
        self._inside.pop()
        if self._is_closed:
            with self._changed:
                self._changed.notify_all()

    def close(self, timeout_seconds: float) -> bool:
        """
        Refuse new passages, wait, and return whether all were released.

        Don't call it while holding a passage: it would wait for its own caller.
        """
        if not self._process.is_this():
            return False
        with self._changed:
            self._is_closed = True
            return self._changed.wait_for(
                lambda: not self._inside, timeout=timeout_seconds
            )


def run_together(
    calls: Sequence[Callable[[], object]],
) -> list[BaseException | None]:
    """
    Make calls that wait for the disk side by side, the first one in this thread.

    Returns:
        What each call raised, or None.
    """
    problems: list[BaseException | None] = [None] * len(calls)

    def run(number: int) -> None:
        try:
            calls[number]()
        except BaseException as error:
            problems[number] = error

    def run_beside(number: int, running: threading.Lock) -> None:
        run(number)
        running.release()

    others = []
    for number in range(1, len(calls)):
        running = threading.Lock()
        running.acquire()
        try:
            # A `threading.Thread` would be waited for until it runs: twice as costly.
            _thread.start_new_thread(run_beside, (number, running))
        except RuntimeError:
            # No thread is to be had: one after the other does as well.
            run(number)
        else:
            others.append(running)
    if calls:
        run(0)
    for running in others:
        running.acquire()
    return problems


class Locks:
    """One lock per name, kept while it is held or awaited."""

    def __init__(self) -> None:
        self._locks: weakref.WeakValueDictionary[str, _Lock] = (
            weakref.WeakValueDictionary()
        )
        self._guard = threading.Lock()

    @property
    def are_held(self) -> bool:
        """Whether any lock is held now."""
        with self._guard:
            return any(lock.lock.locked() for lock in self._locks.values())

    def held(self, *names: str) -> AbstractContextManager[None]:
        """Return a context that holds the locks of names, taken in this order."""
        with self._guard:
            return _Held([self._locks.setdefault(name, _Lock()) for name in names])


class _Lock:
    """A lock that can be referenced weakly."""

    __slots__ = ("__weakref__", "lock")

    def __init__(self) -> None:
        self.lock = threading.Lock()


_ONCE: Final = (True,)


class _Held(AbstractContextManager[None]):
    """
    Context that holds locks; for one ``with`` block.

    It is not a generator, which needs memory to end and without it would leave the
    locks held.
    """

    __slots__ = ("_locks", "_released", "_taken")

    def __init__(self, locks: Sequence[_Lock]) -> None:
        self._locks, self._taken, self._released = locks, list[bool](), 0

    def __enter__(self) -> None:
        for held in self._locks:
            # An interrupt can't come between taking a lock and noting it.
            self._taken.extend(map(held.lock.acquire, _ONCE))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._release()

    def __del__(self) -> None:
        # Release what is still held after an interrupt or a lack of memory.
        self._release()

    def _release(self) -> None:
        while self._released < len(self._taken):
            number = self._released
            self._released = number + 1
            self._locks[number].lock.release()


Task: TypeAlias = Callable[[], float | None]
"""
Job step; returns the seconds until the next one, or None for the usual interval.
"""

JobGuard: TypeAlias = Callable[[str, Task], Task]
"""
Returns a task that runs on one node of a cluster at a time, given its job and itself.
"""


def unguarded(job: str, task: Task) -> Task:
    """Return a task as it is, where there are no other nodes."""
    return task


_IDLE_SECONDS: Final = 3600.0
_LONGEST_SECONDS: Final = 1e9


class _Job(msgspec.Struct):
    seconds: float
    task: Task
    due: float
    is_hurried: bool = False


class BackgroundWorker:
    """
    Daemon thread that runs each task periodically, until it is stopped.

    Exceptions of a task are counted, and the task runs again at its next time.

    Args:
        around: Makes the context in which each step runs.

    Attributes:
        failures: How often a task raised.
    """

    def __init__(
        self, around: Callable[[], AbstractContextManager[object]] = nullcontext
    ) -> None:
        self._around = around
        self._jobs: list[_Job] = []
        self._changed = threading.Condition()
        self._is_stopped = False
        self._process = OpeningProcess()
        self._thread: threading.Thread | None = None
        self.failures = 0

    def every(self, seconds: float, task: Task, *, first: float = 0.0) -> None:
        """
        Run a task periodically.

        Args:
            seconds: From the end of a step to the begin of the next, where the task
                doesn't say otherwise.

            task: Takes little time, because all others wait for it.

            first: Seconds until its first run.
        """
        with self._changed:
            self._jobs.append(_Job(seconds, task, time.monotonic() + first))
            self._changed.notify()

    def hurry(self) -> None:
        """Run every task once more now, also a running one."""
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
        """Start no further step, and wait for the running one."""
        if not self._process.is_this():
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
                with self._around():
                    again = job.task()
            except Exception:
                # The task runs again; callers that need its result see the failure
                # themselves.
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
