# SPDX-License-Identifier: MIT
"""One child process, seen from the parent: bounded frames within bounded time."""

from __future__ import annotations

import contextlib
import os
import select
import subprocess
import time
from collections.abc import Sequence

from hsm_core._internal.crypto.pqcrypto_wheel.worker import ANSWER_BYTES, HEADER
from hsm_core.settings import SCRUBBING_ALLOCATOR


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
