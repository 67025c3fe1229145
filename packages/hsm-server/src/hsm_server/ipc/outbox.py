# SPDX-License-Identifier: MIT
"""Outgoing responses of the vault, sent in chunks."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any, Final

from hsm_server.ipc.channel import Channel
from hsm_server.ipc.frames import CHUNK_BYTES, Answer, Chunk, Event, cut, packed

_MOST_OWED: Final = 512 * 1024 * 1024


class Outbox:
    """
    Queue of responses in which short ones overtake long ones.

    Args:
        channel: To the front end.

        longest: Longest operation, packed, in bytes; limits the responses that wait.
    """

    def __init__(self, channel: Channel[Any], longest: int) -> None:
        self._channel = channel
        self._loop = asyncio.get_running_loop()
        self._sending: dict[int, asyncio.Task[None]] = {}
        self._owed_bytes = 0
        self._most_owed = max(_MOST_OWED, longest * 8)

    def __len__(self) -> int:
        return len(self._sending)

    def send(self, answer: Answer) -> None:
        """Send an answer; who reads none of the long ones loses the connection."""
        if len(answer.result) <= CHUNK_BYTES or not self._channel.is_open:
            self._channel.send(packed(answer))
            return
        self._owed_bytes += len(answer.result)
        if self._owed_bytes > self._most_owed:
            self._channel.close("reads nothing")
            return
        task = self._loop.create_task(self._send_long(answer))
        self._sending[answer.id] = task
        task.add_done_callback(partial(self._note_sent, answer.id, len(answer.result)))

    async def send_event(self, number: int, principal: str, data: bytes) -> None:
        """Send one event of a request, and wait until there is room for another."""
        rest = await self._send_pieces(number, data)
        in_chunks = len(rest) < len(data)
        self._channel.send(packed(Event(number, principal, rest, in_chunks)))
        await self._channel.room()

    def cancel(self, number: int) -> bool:
        """Send no more of an answer; return whether some was still to be sent."""
        task = self._sending.get(number)
        return task is not None and task.cancel()

    def clear(self) -> None:
        """Send no more of anything."""
        for task in list(self._sending.values()):
            task.cancel()

    def _note_sent(self, number: int, size: int, _: asyncio.Task[None]) -> None:
        del self._sending[number]
        self._owed_bytes -= size

    async def _send_long(self, answer: Answer) -> None:
        rest = await self._send_pieces(answer.id, answer.result)
        last = Answer(
            answer.id, answer.principal, rest, in_chunks=True, quota=answer.quota
        )
        self._channel.send(packed(last))

    async def _send_pieces(self, number: int, data: bytes) -> bytes:
        """Send all but the rest of something long, and return that."""
        pieces, rest = cut(data)
        for piece in pieces:
            self._channel.send(packed(Chunk(number, piece)))
            await self._channel.room()
        return rest
