# SPDX-License-Identifier: MIT
"""
Pool of child processes, shared by all threads.

Each child belongs to one thread, which starts it, sends it requests and reaps it. These
threads live as long as the process: the system's signal at a parent's death is sent
when the *thread* ends that started a child.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import queue
import select
import subprocess
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Final

from hsm_core._providers.pqcrypto.worker import ANSWER_BYTES, HEADER
from hsm_core.errors import OverloadedError, UnavailableError
from hsm_core.settings import SCRUBBING_ALLOCATOR

_WAITING: Final = 64
_SECONDS: Final = 30.0
_IDLE_SECONDS: Final = 60.0


class ChildError(Exception):
    """A child ended, answered nonsense, or did not answer in time."""


class Child:
    """
    A running child.

    It gets no environment but the allocator's, no open file but its pipes, no
    controlling terminal, and nothing secret among its arguments.

    Args:
        command: What to start.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter and script
            command,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=dict(SCRUBBING_ALLOCATOR),
            cwd="/",
            umask=0o077,
            close_fds=True,
            start_new_session=True,
        )
        assert self._process.stdin is not None  # noqa: S101 - they are pipes
        assert self._process.stdout is not None  # noqa: S101 - they are pipes
        self._streams = (self._process.stdin, self._process.stdout)
        self._input, self._output = (stream.fileno() for stream in self._streams)
        os.set_blocking(self._input, False)
        os.set_blocking(self._output, False)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def is_running(self) -> bool:
        """Return whether it has not ended yet."""
        return self._process.poll() is None

    def ask(self, request: bytes, deadline: float) -> bytes:
        """
        Send one request and return its answer.

        Args:
            request: Body of the request's frame.

            deadline: Until when, by `time.monotonic`.

        Raises:
            ChildError: There is no answer; the child is of no use any more.
        """
        try:
            self._send(HEADER.pack(len(request)), deadline)
            self._send(request, deadline)
            (size,) = HEADER.unpack(self._receive(HEADER.size, deadline))
            if size > ANSWER_BYTES:
                raise ChildError("sent an answer that is too long")
            return self._receive(size, deadline)
        except OSError as error:
            raise ChildError("ended") from error

    def close(self) -> None:
        """End it, and wait until it has ended."""
        for stream in self._streams:
            with contextlib.suppress(OSError):
                stream.close()
        self._process.kill()
        self._process.wait()

    def kill(self) -> None:
        """End it from any thread, and wait; the one that asks it sees its end."""
        self._process.kill()
        self._process.wait()

    def abandon(self) -> None:
        """Forget it in a process that was forked off; it goes on for the other one."""
        for stream in self._streams:
            with contextlib.suppress(OSError):
                stream.close()
        self._process.returncode = 0

    def _send(self, data: bytes, deadline: float) -> None:
        rest = memoryview(data)
        while rest:
            _wait(self._input, select.POLLOUT, deadline)
            with contextlib.suppress(BlockingIOError):
                rest = rest[os.write(self._input, rest[: select.PIPE_BUF * 16]) :]

    def _receive(self, size: int, deadline: float) -> bytes:
        data = bytearray()
        while len(data) < size:
            _wait(self._output, select.POLLIN, deadline)
            part = os.read(self._output, size - len(data))
            if not part:
                raise ChildError("ended")
            data += part
        return bytes(data)


def _wait(descriptor: int, event: int, deadline: float) -> None:
    """Wait until a pipe is ready, or broken, which the next call tells."""
    poll = select.poll()
    poll.register(descriptor, event)
    remaining = deadline - time.monotonic()
    if remaining <= 0 or not poll.poll(remaining * 1000):
        raise ChildError("did not answer in time")


@dataclass(frozen=True, slots=True)
class _Job:
    request: bytes = field(repr=False)
    deadline: float
    answer: Future[bytes]


class WorkerPool:
    """
    Children that answer one request each at a time.

    They are started when they are needed, again after one has died, and ended when
    they have been idle for long and at the exit of the interpreter.

    Args:
        command: Returns what to start.

        size: How many children there are at most.

        waiting: How many requests may wait for one of them.

        seconds: Within this time every request is answered, or fails.

        idle_seconds: How long an idle child is kept.
    """

    def __init__(
        self,
        command: Callable[[], Sequence[str]],
        *,
        size: int = 2,
        waiting: int = _WAITING,
        seconds: float = _SECONDS,
        idle_seconds: float = _IDLE_SECONDS,
    ) -> None:
        self._command = command
        self._size = size
        self._waiting = waiting
        self._seconds = seconds
        self._idle_seconds = idle_seconds
        self._begin()
        _POOLS.add(self)

    def ask(self, request: bytes) -> bytes:
        """
        Return a child's answer to a request.

        Raises:
            OverloadedError: Too many requests are waiting, or this one did for too
                long; it was not begun.
            UnavailableError: The child failed; another one takes the next request.
        """
        job = _Job(request, time.monotonic() + self._seconds, Future())
        with self._lock:
            if self._closed:
                raise UnavailableError("The worker processes are closed.")
            if self._pending >= self._size + self._waiting:
                raise OverloadedError
            if self._threads < min(self._pending + 1, self._size):
                self._start_thread()
                self._threads += 1
            self._pending += 1
            self._jobs.put(job)
        return job.answer.result()

    def pids(self) -> tuple[int, ...]:
        """Return the process ids of the children that there are."""
        with self._lock:
            return tuple(child.pid for child in self._children)

    def close(self) -> None:
        """End all children; requests that are not answered yet fail."""
        with self._lock:
            self._closed = True
            children = tuple(self._children)
            for _ in range(self._threads):
                self._jobs.put(None)
        for child in children:
            child.kill()

    def forget(self) -> None:
        """Start over in a forked process; the children are not its own."""
        for child in self._children:
            child.abandon()
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._children: set[Child] = set()
        self._threads = 0
        self._pending = 0
        self._closed = False

    def _start_thread(self) -> None:
        thread = threading.Thread(
            target=self._serve, name="hsm-core-pqcrypto", daemon=True
        )
        try:
            thread.start()
        except RuntimeError:  # the limit is reached, or the interpreter is ending
            raise UnavailableError("A thread for pqcrypto could not start.") from None

    def _serve(self) -> None:
        child: Child | None = None
        while True:
            try:
                job = self._jobs.get(timeout=self._idle_seconds if child else None)
            except queue.Empty:
                job = None
            if job is not None:
                child = self._do(job, child)
                # Its key must not wait here for the next one.
                del job
                continue
            if child is not None:
                self._reap(child)
                child = None
            if self._closed:
                return

    def _do(self, job: _Job, child: Child | None) -> Child | None:
        """Answer one job, and return the child that may take the next."""
        answer = b""
        failure: UnavailableError | None = None
        try:
            if self._closed:
                raise ChildError("is closed")
            if time.monotonic() >= job.deadline:
                raise OverloadedError
            if child is not None and not child.is_running():
                self._reap(child)
                child = None
            child = child or self._spawn()
            answer = child.ask(job.request, job.deadline)
        except OverloadedError as error:
            failure = error
        except Exception as error:
            failure = UnavailableError(f"The pqcrypto worker process {_reason(error)}.")
            if child is not None:
                self._reap(child)
                child = None
        with self._lock:
            self._pending -= 1
        if failure is None:
            job.answer.set_result(answer)
        else:
            job.answer.set_exception(failure)
        return child

    def _spawn(self) -> Child:
        child = Child(self._command())
        with self._lock:
            self._children.add(child)
            if self._closed:
                child.kill()
        return child

    def _reap(self, child: Child) -> None:
        with self._lock:
            self._children.discard(child)
        child.close()


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, ChildError) else "could not be started"


_POOLS: Final[weakref.WeakSet[WorkerPool]] = weakref.WeakSet()


def _close_all() -> None:
    for pool in tuple(_POOLS):
        pool.close()


def _forget_all() -> None:
    for pool in tuple(_POOLS):
        pool.forget()


atexit.register(_close_all)
os.register_at_fork(after_in_child=_forget_all)
