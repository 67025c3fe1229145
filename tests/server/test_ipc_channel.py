# SPDX-License-Identifier: MIT
"""One end of a connection: bounded, and quick to give up."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from hsm_server.ipc.channel import Channel
from hsm_server.ipc.frames import MAX_FRAME_BYTES, Cancel, Chunk, packed
from tests.server.ipc_support import BACK
from tests.server.support import until

MODULE = "hsm_server.ipc.channel"


class Other:
    """A channel that reads as a vault does, and the other end of it."""

    def __init__(self) -> None:
        self.batches: list[list[Any]] = []
        self.lost: list[str] = []
        self.on_frames: Callable[[list[Any]], None] = self.batches.append
        self._channels: list[Channel[Any]] = []
        self.ends: list[socket.socket] = []

    def open(self, **options: Any) -> tuple[Channel[Any], socket.socket]:
        """Open a channel; return it and the other end, which blocks."""
        ours, theirs = socket.socketpair()
        channel: Channel[Any] = Channel(
            theirs,
            BACK,
            lambda frames: self.on_frames(frames),
            self.lost.append,
            **options,
        )
        self._channels.append(channel)
        self.ends.append(ours)
        return channel, ours

    @property
    def frames(self) -> list[Any]:
        """All frames that were read."""
        return [frame for batch in self.batches for frame in batch]

    def close(self) -> None:
        """Close everything."""
        for channel in self._channels:
            channel.close()
        for end in self.ends:
            end.close()


@pytest.fixture
async def other() -> AsyncIterator[Other]:
    """Give something to open channels with."""
    opened = Other()
    yield opened
    opened.close()


async def drained(end: socket.socket, size: int) -> bytes:
    """Read this many bytes from an end."""
    end.setblocking(False)
    loop, data = asyncio.get_running_loop(), bytearray()
    async with asyncio.timeout(60):
        while len(data) < size:
            data += await loop.sock_recv(end, 2**18)
    return bytes(data)


class TestReading:
    async def test_a_frame_in_pieces(self, other: Other) -> None:
        """A frame that arrives byte by byte is read once, when it is whole."""
        _, end = other.open()

        for byte in packed(Cancel(7)):
            end.send(bytes([byte]))
            await asyncio.sleep(0)
        await until(lambda: other.batches)

        assert [[Cancel(7)]] == other.batches

    async def test_the_longest_frame(self, other: Other) -> None:
        """A frame of the greatest length is read."""
        _, end = other.open()
        spare = len(packed(Chunk(1, b"x" * 2**17))) - 2**17 - 4
        data = b"x" * (MAX_FRAME_BYTES - spare)
        end.setblocking(False)

        await asyncio.get_running_loop().sock_sendall(end, packed(Chunk(1, data)))
        await until(lambda: other.batches)

        assert [Chunk(1, data)] == other.frames

    async def test_the_other_side_is_gone(self, other: Other) -> None:
        """The end of the connection is told once, by that name."""
        _, end = other.open()

        end.close()
        await until(lambda: other.lost)

        assert ["gone"] == other.lost

    async def test_closing_is_told_once(self, other: Other) -> None:
        """Closing twice is told once."""
        channel, _ = other.open()

        channel.close()
        channel.close("again")

        assert ["closed"] == other.lost

    async def test_an_error_of_who_takes_frames(self, other: Other) -> None:
        """An exception ends the connection, so that no frame is heeded twice."""
        _, end = other.open()
        told: list[Any] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context: told.append(context["exception"]))

        def fail(frames: list[Any]) -> None:
            other.batches.append(frames)
            raise LookupError

        other.on_frames = fail
        end.send(packed(Cancel(1)))
        await until(lambda: other.lost)

        assert ["an unexpected error"] == other.lost
        assert [[Cancel(1)]] == other.batches
        assert [LookupError] == [type(error) for error in told]


class TestSlowBytes:
    async def test_single_bytes_win_no_time(
        self, other: Other, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Bytes that come one by one don't begin the time anew."""
        monkeypatch.setattr(f"{MODULE}._FRAME_SECONDS", 0.2)
        _, end = other.open()
        frame = packed(Chunk(1, b"x" * 200_000))

        sent = 0
        while not other.lost and sent < 2000:
            end.send(frame[sent : sent + 1])
            sent += 1
            await asyncio.sleep(0.01)

        assert ["an incomplete frame"] == other.lost

    async def test_between_frames_there_is_time(
        self, other: Other, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Who sends nothing, or whole frames only, is never late."""
        monkeypatch.setattr(f"{MODULE}._FRAME_SECONDS", 0.01)
        _, end = other.open()

        for number in range(1, 6):
            end.send(packed(Cancel(number)))
            await asyncio.sleep(0.03)

        assert [] == other.lost
        assert 5 == len(other.frames)


class TestStrangers:
    async def test_another_user(self, other: Other) -> None:
        """What another user sends is not read, and ends the connection."""
        _, end = other.open(peer_uid=os.geteuid() + 1)

        end.send(packed(Cancel(1)))
        await until(lambda: other.lost)

        assert ["from another user"] == other.lost
        assert [] == other.batches


class TestWriting:
    async def test_room(self, other: Other) -> None:
        """There is room until much is unsent, and again once it was read."""
        channel, end = other.open()
        frame = packed(Chunk(1, b"x" * 500_000))

        for _ in range(4):
            channel.send(frame)
        waiting = asyncio.ensure_future(channel.room())
        await asyncio.sleep(0.05)
        assert not channel.has_room
        assert not waiting.done()
        await drained(end, 4 * len(frame))

        async with asyncio.timeout(60):
            await waiting

    async def test_the_end_makes_room(self, other: Other) -> None:
        """Who waits for room is let go when the connection ends."""
        channel, end = other.open()
        channel.send(packed(Chunk(1, b"x" * 1_000_000)) * 3)
        waiting = asyncio.ensure_future(channel.room())
        await asyncio.sleep(0)

        end.close()

        async with asyncio.timeout(60):
            await waiting
        assert ["gone"] == other.lost

    async def test_who_reads_nothing(
        self, other: Other, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Who leaves too much unread is given up, and nothing is kept for them."""
        monkeypatch.setattr(f"{MODULE}._MOST_UNSENT", 2_000_000)
        channel, _ = other.open()

        for _ in range(5):
            channel.send(packed(Chunk(1, b"x" * 500_000)))

        assert ["reads nothing"] == other.lost
        assert not channel.is_open


class TestPace:
    async def test_who_does_not_read_is_not_read(
        self, other: Other, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """While much is unread by the other side, nothing of it is read, nor late."""
        monkeypatch.setattr(f"{MODULE}._FRAME_SECONDS", 0.05)
        channel, end = other.open(is_paced=True)
        much = packed(Chunk(1, b"x" * 1_000_000)) * 9
        channel.send(much)
        ping = packed(Cancel(1))

        end.send(ping + ping[:3])
        await asyncio.sleep(0.2)
        unread = list(other.batches)
        monkeypatch.setattr(f"{MODULE}._FRAME_SECONDS", 20.0)
        await drained(end, len(much))
        await asyncio.get_running_loop().sock_sendall(end, ping[3:])
        await until(lambda: len(other.frames) == 2)

        assert [] == unread
        assert [] == other.lost

    async def test_without_it(self, other: Other) -> None:
        """Only where it is asked for; or both sides could wait for ever."""
        channel, end = other.open()
        channel.send(packed(Chunk(1, b"x" * 1_000_000)) * 9)

        end.send(packed(Cancel(1)))
        await until(lambda: other.batches)

        assert [Cancel(1)] == other.frames

    async def test_the_end_while_nothing_is_read(self, other: Other) -> None:
        """That the other side is gone is noticed all the same."""
        channel, end = other.open(is_paced=True)
        channel.send(packed(Chunk(1, b"x" * 1_000_000)) * 9)

        end.close()
        await until(lambda: other.lost)

        assert ["gone"] == other.lost
