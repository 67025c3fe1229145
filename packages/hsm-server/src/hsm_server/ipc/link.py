# SPDX-License-Identifier: MIT
"""Front end's side of one connection to the vault."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from hsm_core import wire
from hsm_core.errors import (
    HSMError,
    OutcomeUnknownError,
    OverloadedError,
    UnavailableError,
)
from hsm_core.operations import Effect, Operation
from hsm_server.__about__ import __version__
from hsm_server.ipc.channel import Channel
from hsm_server.ipc.frames import (
    MAX_WAITING,
    PROTOCOL,
    Answer,
    Cancel,
    Chunk,
    Event,
    FromVault,
    Hello,
    Request,
    cut,
    packed,
)

_CHANGES: Final = frozenset({Effect.CONSENT, Effect.MUTATION, Effect.RECOVERY})
_MOST_EVENTS: Final = 64
_MOST_ANSWER_BYTES: Final = 1024 * 1024 * 1024


@dataclass(slots=True)
class _Waiting:
    """Request waiting for its response."""

    operation: Operation[Any] | None
    answer: asyncio.Future[Answer]
    pieces: list[bytes] = field(default_factory=list)
    pieces_bytes: int = 0
    events: asyncio.Queue[Event] | None = None
    is_sent: bool = False

    @property
    def is_answered(self) -> bool:
        """Whether there is an answer of the vault."""
        answer = self.answer
        return answer.done() and not answer.cancelled() and not answer.exception()

    def give_up(self) -> None:
        """Fail the request: its response will not come."""
        self.fail(_lost(self.operation if self.is_sent else None))

    def fail(self, error: HSMError) -> None:
        """Fail the request with an error."""
        if not self.answer.done():
            self.answer.set_exception(error)
            # The caller may have gone.
            self.answer.exception()

    def keep(self, piece: bytes) -> bool:
        """Keep a piece of what comes; return whether that is not too much."""
        self.pieces.append(piece)
        self.pieces_bytes += len(piece)
        return self.pieces_bytes <= _MOST_ANSWER_BYTES

    def whole(self, rest: bytes) -> bytes:
        """Return all pieces and the rest, and forget them."""
        data = b"".join([*self.pieces, rest])
        self.pieces.clear()
        self.pieces_bytes = 0
        return data


class VaultLink:
    """
    Connection to the vault: sends requests and matches responses.

    Requests fail only when the connection ends, however long the vault takes: a request
    that was sent may be executed. The supervisor ends a vault that hangs.

    Args:
        end: Connected socket; the link closes it.

        on_trouble: Called when the vault is lost.
    """

    def __init__(self, end: socket.socket, on_trouble: Callable[[str], None]) -> None:
        self._on_trouble = on_trouble
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[int, _Waiting] = {}
        self._last_id = 0
        self._greeted = False
        self._channel: Channel[FromVault] = Channel(
            end, FromVault, self._take, self._on_lost
        )
        self._channel.send(packed(Hello(PROTOCOL, __version__)))

    @property
    def is_open(self) -> bool:
        """Whether the connection has not ended."""
        return self._channel.is_open

    def close(self) -> None:
        """End the connection; what waits is given up."""
        self._channel.close()

    async def ask(self, request: Request, operation: Operation[Any] | None) -> Answer:
        """
        Send a request, under the next id, and return its answer.

        Args:
            request: Its own id does not count.

            operation: What it asks for, if it is one.

        Raises:
            UnavailableError: The answer will not come. Of a change, which may have been
                made, this is `OutcomeUnknownError`.
            OverloadedError: Too many wait already.
        """
        waiting = self._begin(operation)
        number = self._last_id
        try:
            await self._send(number, request, waiting)
            return await waiting.answer
        finally:
            self._end(number)

    async def events(
        self, request: Request, operation: Operation[Any]
    ) -> AsyncGenerator[tuple[str, bytes], None]:
        """
        Send a request, and give principal and data of each event until its answer.

        Raises:
            HSMError: What the vault answered in the end; or see `ask`.
        """
        waiting = self._begin(operation)
        waiting.events = asyncio.Queue(_MOST_EVENTS)
        number = self._last_id
        try:
            await self._send(number, request, waiting)
            while True:
                event = await _next(waiting.events, waiting.answer)
                if event is None:
                    break
                yield event.principal, event.data
            answer = waiting.answer.result()
            if answer.error is not None:
                raise wire.error_from_record(answer.error)
        finally:
            self._end(number)

    def _begin(self, operation: Operation[Any] | None) -> _Waiting:
        if not self.is_open:
            raise _lost(None)
        if len(self._waiting) >= MAX_WAITING:
            raise OverloadedError
        self._last_id += 1
        waiting = _Waiting(operation, self._loop.create_future())
        self._waiting[self._last_id] = waiting
        return waiting

    def _end(self, number: int) -> None:
        """Wait no more, and say so where the vault has not answered."""
        if not self._waiting.pop(number).is_answered:
            self._channel.send(packed(Cancel(number)))

    async def _send(self, number: int, request: Request, waiting: _Waiting) -> None:
        """Send a request while its caller waits."""
        pieces, rest = cut(request.operation)
        in_chunks = False
        for piece in pieces:
            in_chunks = True
            self._channel.send(packed(Chunk(number, piece)))
            await self._room(waiting)
            if waiting.answer.done():
                return
        request = msgspec.structs.replace(
            request, id=number, operation=rest, in_chunks=in_chunks
        )
        waiting.is_sent = True
        self._channel.send(packed(request))

    async def _room(self, waiting: _Waiting) -> None:
        """Wait until little is left to be sent, or the answer is given up."""
        if self._channel.has_room:
            return
        room = asyncio.ensure_future(self._channel.room())
        either: set[asyncio.Future[Any]] = {room, waiting.answer}
        try:
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        finally:
            room.cancel()

    def _take(self, frames: list[FromVault]) -> None:
        for frame in frames:
            if not self._accept(frame):
                self._channel.close("a frame out of order")
                return

    def _accept(self, frame: FromVault) -> bool:
        """Take a frame in; return whether it may come here and now."""
        if not self._greeted:
            self._greeted = isinstance(frame, Hello) and frame.protocol == PROTOCOL
            return self._greeted
        match frame:
            case Hello():
                return False
            case Answer() | Chunk() | Event():
                if frame.id > self._last_id:
                    return False
                waiting = self._waiting.get(frame.id)
                # What was given up may be answered all the same.
                return waiting is None or self._give(waiting, frame)

    def _give(self, waiting: _Waiting, frame: Answer | Chunk | Event) -> bool:
        if isinstance(frame, Chunk):
            return waiting.keep(frame.data)
        if frame.in_chunks != bool(waiting.pieces):
            return False
        match frame:
            case Event():
                if waiting.events is None:
                    return False
                if frame.in_chunks:
                    data = waiting.whole(frame.data)
                    frame = msgspec.structs.replace(frame, data=data)
                self._give_event(waiting, waiting.events, frame)
            case Answer():
                if frame.in_chunks:
                    result = waiting.whole(frame.result)
                    frame = msgspec.structs.replace(frame, result=result)
                if not waiting.answer.done():
                    waiting.answer.set_result(frame)
        return True

    def _give_event(
        self, waiting: _Waiting, events: asyncio.Queue[Event], event: Event
    ) -> None:
        if not events.full():
            events.put_nowait(event)
        elif not waiting.answer.done():
            # A slow reader must not delay the others.
            waiting.fail(OverloadedError())
            self._channel.send(packed(Cancel(event.id)))

    def _on_lost(self, reason: str) -> None:
        for waiting in list(self._waiting.values()):
            waiting.give_up()
        if reason != "closed":
            self._on_trouble(f"the connection to the vault ended: {reason}")


async def _next(
    events: asyncio.Queue[Event], answer: asyncio.Future[Answer]
) -> Event | None:
    """Return the next event; None when the answer is there and no event is left."""
    if not events.empty():
        return events.get_nowait()
    getting = asyncio.ensure_future(events.get())
    try:
        either: set[asyncio.Future[Any]] = {getting, answer}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if getting.done():
            return getting.result()
        return None if events.empty() else events.get_nowait()
    finally:
        getting.cancel()


def _lost(operation: Operation[Any] | None) -> HSMError:
    """Return the error of a request without a response."""
    if operation is not None and operation.effect in _CHANGES:
        return OutcomeUnknownError(
            "The vault process ended before it reported the outcome. Send the "
            "same request again with the same idempotency key."
        )
    return UnavailableError(
        "The vault process does not respond and is being restarted."
    )
