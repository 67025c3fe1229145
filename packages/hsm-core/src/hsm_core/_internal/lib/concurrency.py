# SPDX-License-Identifier: MIT
"""Threads: admission gate, named locks and background worker."""

from __future__ import annotations

import _thread
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from types import TracebackType
from typing import Final, TypeAlias

import msgspec

from hsm_core._internal.lib.process import OpeningProcess
from hsm_core.errors import UnavailableError

SHORTAGE_SECONDS: Final = 0.001
"""Pause of a thread that can't do its work for lack of memory."""


class Bell:
    """
    Wakes one thread; ringing needs no memory.

    It is no `threading.Condition`, whose lock stays held where memory is out at the end
    of a ``with`` block.
    """

    def __init__(self) -> None:
        self._silent = threading.Lock()
        self._silent.acquire()

    def ring(self) -> None:
        """Wake the thread that waits, or else the next one that would."""
        try:
            self._silent.release()
        except RuntimeError:
            return  # It rings already.

    def wait(self, seconds: float) -> None:
        """Wait until it rings, which it may have before; negative is without limit."""
        self._silent.acquire(True, seconds)


class Gate:
    """Admission gate for operations. Thread-safe."""

    def __init__(self) -> None:
        # Adding and taking are atomic, and a lock would cost more. Taking from a list
        # may need memory, and without it what has left would still count as inside.
        self._inside = deque[None]()
        self._is_closed = False
        self._left = Bell()
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
            self._left.ring()

    def close(self, timeout_seconds: float) -> bool:
        """
        Refuse new passages, wait, and return whether all were released.

        Don't call it while holding a passage: it would wait for its own caller. Nor
        from two threads at once.
        """
        if not self._process.is_this():
            return False
        self._is_closed = True
        ends = time.monotonic() + timeout_seconds
        while self._inside and (left := ends - time.monotonic()) > 0:
            self._left.wait(left)
        return not self._inside


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
        self._guard = _Lock()

    @property
    def are_held(self) -> bool:
        """Whether any lock is held now."""
        with _Held((self._guard,)):
            return any(lock.lock.locked() for lock in self._locks.values())

    def held(self, *names: str) -> AbstractContextManager[None]:
        """Return a context that holds the locks of names, taken in this order."""
        with _Held((self._guard,)):
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

    It is neither a generator nor a lock of `threading`, which need memory to end and
    without it would leave the locks held.
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

    def at(self) -> float:
        return 0.0 if self.is_hurried else self.due


class BackgroundWorker:
    """
    Daemon thread that runs each task periodically, until it is stopped.

    A task that raises runs again at its next time.

    Args:
        around: Makes the context in which each step runs.
    """

    def __init__(
        self, around: Callable[[], AbstractContextManager[object]] = nullcontext
    ) -> None:
        self._around = around
        self._jobs: list[_Job] = []
        self._bell = Bell()
        self._is_stopped = False
        self._process = OpeningProcess()
        self._thread: threading.Thread | None = None

    def every(self, seconds: float, task: Task, *, first: float = 0.0) -> None:
        """
        Run a task periodically.

        Args:
            seconds: From the end of a step to the begin of the next, where the task
                doesn't say otherwise.

            task: Takes little time, because all others wait for it.

            first: Seconds until its first run.
        """
        self._jobs.append(_Job(seconds, task, time.monotonic() + first))
        self._bell.ring()

    def hurry(self) -> None:
        """Run every task once more now, also a running one."""
        for job in self._jobs:
            job.is_hurried = True
        self._bell.ring()

    def start(self) -> None:
        """Begin."""
        thread = threading.Thread(target=self._run, name="hsm-core-care", daemon=True)
        self._thread = thread
        thread.start()

    def stop(self, timeout_seconds: float) -> None:
        """Start no further step, and wait for the running one."""
        if not self._process.is_this():
            return
        self._is_stopped = True
        self._bell.ring()
        if self._thread is not None:
            self._thread.join(timeout_seconds)

    def _run(self) -> None:
        while not self._is_stopped:
            try:
                self._turn()
            except Exception:
                # Healing depends on this thread, which goes on once there is memory.
                time.sleep(SHORTAGE_SECONDS)

    def _turn(self) -> None:
        """Run the task that is due, or wait until one may be."""
        job = min(self._jobs, key=_Job.at, default=None)
        left = _IDLE_SECONDS if job is None else job.at() - time.monotonic()
        if job is None or left > 0:
            self._bell.wait(min(left, _IDLE_SECONDS))
            return
        # Before it runs: it may be hurried meanwhile.
        job.is_hurried, seconds = False, job.seconds
        try:
            # If it raises, it runs again; callers that need its result see the failure
            # themselves.
            with suppress(Exception), self._around():
                again = job.task()
                if again is not None:
                    seconds = again
        finally:
            # A sum with any number that a task may return would fail.
            job.due = time.monotonic() + min(seconds, _LONGEST_SECONDS)
