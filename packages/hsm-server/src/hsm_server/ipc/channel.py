# SPDX-License-Identifier: MIT
"""
Channel: one end of a bounded connection between two server processes.

Any fault closes the connection: a frame that is too long, malformed or late, or from
another user than the peer (the kernel reports the user with each piece).
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any, Final, Generic, TypeVar

import msgspec

from hsm_server.ipc.frames import HEADER_BYTES, MAX_FRAME_BYTES, chunk_head

T = TypeVar("T")

_FRAME_SECONDS: Final = 5.0
_READ_BYTES: Final = 64 * 1024
"""At once; for more than 128 KiB the C library maps fresh pages on each read."""

_MOST_UNSENT: Final = 512 * 1024 * 1024
_MUCH_UNSENT: Final = 8 * 1024 * 1024
_FEW_UNSENT: Final = 1024 * 1024
_AT_ONCE: Final = 64
"""Frames in one system call."""

_TRUNCATED: Final = int(socket.MSG_CTRUNC)
_SOCKET: Final = int(socket.SOL_SOCKET)
_SCM_CREDENTIALS: Final = 2  # <linux/socket.h>; Python names it from 3.14 on
_CREDENTIALS: Final = struct.Struct("3i")  # unix(7): pid, uid, gid
_ANCILLARY_BYTES: Final = socket.CMSG_SPACE(_CREDENTIALS.size)


class Channel(Generic[T]):
    """
    Reader and writer of frames on the running event loop.

    Args:
        end: Connected Unix stream socket; the channel closes it.

        frames: Type of the frames that may be read, a union.

        on_frames: Called with all frames that have arrived together.

        on_lost: Called once with the reason of the end: ``closed`` by this side,
            ``gone`` by the other, or the fault.

        peer_uid: User whose frames are read; None reads anybody's.

        is_paced: Whether to stop reading while the peer does not read. Only one side
            may do so, to avoid a deadlock.
    """

    def __init__(
        self,
        end: socket.socket,
        frames: Any,
        on_frames: Callable[[list[T]], None],
        on_lost: Callable[[str], None],
        *,
        peer_uid: int | None = None,
        is_paced: bool = False,
    ) -> None:
        self._socket = end
        self._decoder: msgspec.msgpack.Decoder[T] = msgspec.msgpack.Decoder(frames)
        self._on_frames = on_frames
        self._on_lost = on_lost
        self._peer_uid = peer_uid
        self._is_paced = is_paced
        self._loop = asyncio.get_running_loop()
        self._unread = bytearray()
        self._late: asyncio.TimerHandle | None = None
        self._unsent: deque[bytes | memoryview] = deque()
        self._unsent_bytes = 0
        self._is_flushing = self._is_writing = self._is_paused = False
        self._has_room = asyncio.Event()
        self._has_room.set()
        self.is_open = True
        end.setblocking(False)
        if peer_uid is not None:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._loop.add_reader(end.fileno(), self._read)

    def send_chunk(self, number: int, data: memoryview) -> None:
        """Send a chunk, without a copy of its data."""
        self.send(chunk_head(number, len(data)))
        self.send(data)

    def send(self, frame: bytes | memoryview) -> None:
        """Send a packed frame, together with others of the same turn of the loop."""
        if not self.is_open:
            return
        self._unsent.append(frame)
        self._unsent_bytes += len(frame)
        if self._unsent_bytes > _FEW_UNSENT:
            self._has_room.clear()
            if self._unsent_bytes > _MOST_UNSENT:
                self.close("reads nothing")
                return
            if self._is_paced and self._unsent_bytes > _MUCH_UNSENT:
                self._pause()
        if not self._is_flushing and not self._is_writing:
            self._is_flushing = True
            self._loop.call_soon(self._flush)

    @property
    def has_room(self) -> bool:
        """Whether little is left to be sent."""
        return self._has_room.is_set()

    async def room(self) -> None:
        """Wait until little is left to be sent, or the connection is gone."""
        await self._has_room.wait()

    def close(self, reason: str = "closed") -> None:
        """End the connection."""
        if not self.is_open:
            return
        self.is_open = False
        self._stop_clock()
        self._loop.remove_reader(self._socket.fileno())
        self._loop.remove_writer(self._socket.fileno())
        self._socket.close()
        self._unsent.clear()
        self._unread = bytearray()
        self._has_room.set()
        self._on_lost(reason)

    def _read(self) -> None:
        try:
            data = self._receive()
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            self.close("gone")
            return
        if data is None:
            self.close("from another user")
        elif not data:
            self.close("gone")
        else:
            self._unread += data
            self._take()

    def _receive(self) -> bytes | None:
        """Return the received data; None if it came from another user."""
        if self._peer_uid is None:
            return self._socket.recv(_READ_BYTES)
        data, ancillary, flags, _ = self._socket.recvmsg(_READ_BYTES, _ANCILLARY_BYTES)
        if not data:
            return data
        if flags & _TRUNCATED or len(ancillary) != 1:
            # Descriptors were sent along, which nobody here asks for.
            return None
        level, kind, content = ancillary[0]
        if (level, kind) != (_SOCKET, _SCM_CREDENTIALS):
            return None
        _, uid, _ = _CREDENTIALS.unpack(content)
        return data if uid == self._peer_uid else None

    def _take(self) -> None:
        """Pass on complete frames."""
        frames: list[T] = []
        at, end = 0, len(self._unread)
        fault = ""
        with memoryview(self._unread) as unread:
            while end - at >= HEADER_BYTES:
                length = int.from_bytes(unread[at : at + HEADER_BYTES], "big")
                if not 0 < length <= MAX_FRAME_BYTES:
                    fault = "a frame of a wrong length"
                    break
                begin = at + HEADER_BYTES
                if end - begin < length:
                    break
                try:
                    frames.append(self._decoder.decode(unread[begin : begin + length]))
                except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
                    fault = "a frame that can't be read"
                    break
                at = begin + length
        del self._unread[:at]
        if frames:
            self._hand_on(frames)
        if fault:
            self.close(fault)
        elif self.is_open and not self._is_paused:
            self._watch_rest(has_moved=at > 0)

    def _hand_on(self, frames: list[T]) -> None:
        try:
            self._on_frames(frames)
        except BaseException:
            # Nobody knows which of them were heeded.
            self.close("an unexpected error")
            raise

    def _pause(self) -> None:
        """Read nothing more for now; what is read only in part is not late."""
        if not self._is_paused:
            self._is_paused = True
            self._loop.remove_reader(self._socket.fileno())
            self._stop_clock()

    def _go_on(self) -> None:
        self._is_paused = False
        self._loop.add_reader(self._socket.fileno(), self._read)
        self._watch_rest(has_moved=True)

    def _watch_rest(self, *, has_moved: bool) -> None:
        """Start the time limit of an incomplete frame."""
        if has_moved or not self._unread:
            self._stop_clock()
        if self._unread and self._late is None:
            self._late = self._loop.call_later(
                _FRAME_SECONDS, self.close, "an incomplete frame"
            )

    def _stop_clock(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _flush(self) -> None:
        self._is_flushing = False
        if not self.is_open:
            return
        try:
            while self._unsent:
                self._drop(self._socket.sendmsg(islice(self._unsent, _AT_ONCE)))
        except (BlockingIOError, InterruptedError):
            if not self._is_writing:
                self._is_writing = True
                self._loop.add_writer(self._socket.fileno(), self._flush)
            return
        except OSError:
            self.close("gone")
            return
        if self._is_writing:
            self._is_writing = False
            self._loop.remove_writer(self._socket.fileno())

    def _drop(self, sent: int) -> None:
        """Forget what was sent."""
        self._unsent_bytes -= sent
        while sent:
            first = self._unsent[0]
            if len(first) > sent:
                self._unsent[0] = memoryview(first)[sent:]
                break
            sent -= len(first)
            self._unsent.popleft()
        if self._unsent_bytes <= _FEW_UNSENT:
            self._has_room.set()
            if self._is_paused:
                self._go_on()
