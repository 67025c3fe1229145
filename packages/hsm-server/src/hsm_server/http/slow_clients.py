# SPDX-License-Identifier: MIT
"""
Slow-client check: detects clients that do not read.

Under TLS no transport reports the unsent part of a response: neither asyncio nor uvloop
exposes encrypted data that waits. The kernel knows which data was acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import sys
import termios
from typing import Any, Final

_SECONDS: Final = 60.0
"""Time in which a client must read a minimum."""

_LEAST_BYTES: Final = 32 * 1024
_LOOK_SECONDS: Final = 0.1
_INFO_BYTES: Final = 128
_ACKNOWLEDGED: Final = slice(120, 128)
"""Offset of ``tcpi_bytes_acked`` in ``struct tcp_info`` (Linux 4.1 and newer)."""


class SlowClientCheck:
    """
    Slow-client check: closes a connection whose client reads almost nothing.

    Args:
        loop: The event loop.
    """

    __slots__ = ("_loop", "_timer")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None

    def watch(self, transport: asyncio.WriteTransport) -> None:
        """Begin to look at what a client takes, who has not taken all."""
        self.end()
        taken = _taken_bytes(transport)
        self._timer = self._loop.call_later(_SECONDS, self._check, transport, taken)

    def _check(self, transport: asyncio.WriteTransport, before: int) -> None:
        if _taken_bytes(transport) - before < _LEAST_BYTES:
            transport.abort()
        else:
            self.watch(transport)

    def end(self) -> None:
        """Stop watching."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    async def wait(self, transport: asyncio.WriteTransport) -> None:
        """Wait until a client has taken all, or the connection ends."""
        self.watch(transport)
        try:
            while not (transport.is_closing() or _is_all_taken(transport)):
                await asyncio.sleep(_LOOK_SECONDS)
        finally:
            self.end()


def _taken_bytes(transport: asyncio.WriteTransport) -> int:
    """
    Return a number that grows by each byte that a client takes.

    Where it is not TCP, what is left in the transport tells it.
    """
    connection: Any = transport.get_extra_info("socket")
    with contextlib.suppress(AttributeError, OSError):
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _INFO_BYTES)
        if len(info) == _INFO_BYTES:
            return int.from_bytes(info[_ACKNOWLEDGED], sys.byteorder)
    return -transport.get_write_buffer_size()


def _is_all_taken(transport: asyncio.WriteTransport) -> bool:
    """
    Return whether a client has received everything, or the kernel cannot tell.

    As long as a transport has something left, the system's own queue is not empty.
    """
    connection: Any = transport.get_extra_info("socket")
    queued = bytearray(4)
    try:
        fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, queued)
    except (AttributeError, OSError, ValueError):
        return True
    return not any(queued) and not transport.get_write_buffer_size()
