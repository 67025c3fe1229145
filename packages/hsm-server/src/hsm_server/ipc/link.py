# SPDX-License-Identifier: MIT
"""The front end's end of one connection to the vault."""

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
    Ping,
    Pong,
    Request,
    cut,
    packed,
)

__all__ = ["Link"]

_PING_SECONDS: Final = 0.15
_SILENT_SECONDS: Final = 0.6
_ASLEEP_SECONDS: Final = 0.4
_MOST_EVENTS: Final = 64
_PING: Final = packed(Ping())


@dataclass(slots=True)
class _Waiting:
    """What waits for an answer."""

    operation: Operation[Any] | None
    answer: asyncio.Future[Answer]
    pieces: list[bytes] = field(default_factory=list)
    events: asyncio.Queue[Event] | None = None

    def give_up(self) -> None:
        """Say that the answer will not come."""
        if not self.answer.done():
            self.answer.set_exception(_lost(self.operation))


class Link:
    """
    Sends requests and gives each its own answer.

    A vault that is not heard for 0.6 s counts as silent: what waits is given up, and
    nothing more is sent to it until it is heard again.

    Args:
        end: Connected socket; the link closes it.

        on_trouble: Is told when the vault is lost, silent, or heard again.
    """

    def __init__(self, end: socket.socket, on_trouble: Callable[[str], None]) -> None:
        self._on_trouble = on_trouble
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[int, _Waiting] = {}
        self._last_id = 0
        self._greeted = self._is_silent = False
        self._asked_at: float | None = None
        self._ticked_at = self._loop.time()
        self._channel: Channel[FromVault] = Channel(
            end, FromVault, self._take, self._on_lost
        )
        self._channel.send(packed(Hello(PROTOCOL, __version__)))
        self._timer = self._loop.call_later(_PING_SECONDS, self._tick)

    @property
    def is_open(self) -> bool:
        """Whether the connection has not ended."""
        return self._channel.is_open

    @property
    def is_usable(self) -> bool:
        """Whether requests can be sent."""
        return self._channel.is_open and not self._is_silent

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
            await self._send(number, request)
            return await waiting.answer
        except asyncio.CancelledError:
            self._channel.send(packed(Cancel(number)))
            raise
        finally:
            self._waiting.pop(number, None)

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
            await self._send(number, request)
            while True:
                event = await _next(waiting.events, waiting.answer)
                if event is None:
                    break
                yield event.principal, event.data
            answer = waiting.answer.result()
            if answer.error is not None:
                raise wire.error_from_record(answer.error)
        finally:
            if self._waiting.pop(number, None) and not waiting.answer.done():
                self._channel.send(packed(Cancel(number)))

    def _begin(self, operation: Operation[Any] | None) -> _Waiting:
        if len(self._waiting) >= MAX_WAITING:
            raise OverloadedError
        self._last_id += 1
        waiting = _Waiting(operation, self._loop.create_future())
        self._waiting[self._last_id] = waiting
        return waiting

    async def _send(self, number: int, request: Request) -> None:
        pieces, rest = cut(request.operation)
        in_chunks = False
        for piece in pieces:
            in_chunks = True
            self._channel.send(packed(Chunk(number, piece)))
            await self._channel.room()
        request = msgspec.structs.replace(
            request, id=number, operation=rest, in_chunks=in_chunks
        )
        self._channel.send(packed(request))

    def _take(self, frames: list[FromVault]) -> None:
        self._asked_at = None
        if self._is_silent:
            self._is_silent = False
            self._on_trouble("the vault is heard again")
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
            case Pong():
                return True
            case Hello():
                return False
            case Answer() | Chunk() | Event():
                if frame.id > self._last_id:
                    return False
                waiting = self._waiting.get(frame.id)
                # What was given up may be answered all the same.
                return waiting is None or self._give(waiting, frame)

    def _give(self, waiting: _Waiting, frame: Answer | Chunk | Event) -> bool:
        match frame:
            case Chunk():
                waiting.pieces.append(frame.data)
            case Event():
                if waiting.events is None:
                    return False
                self._give_event(waiting, waiting.events, frame)
            case Answer():
                if frame.in_chunks != bool(waiting.pieces):
                    return False
                if frame.in_chunks:
                    result = b"".join([*waiting.pieces, frame.result])
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
            # Who reads too slowly must not hold up the others.
            waiting.answer.set_exception(OverloadedError())
            self._channel.send(packed(Cancel(event.id)))

    def _tick(self) -> None:
        """Ask whether the vault is there, and notice that it does not answer."""
        if not self._channel.is_open:
            return
        now = self._loop.time()
        has_slept = now - self._ticked_at > _ASLEEP_SECONDS
        self._ticked_at = now
        self._timer = self._loop.call_later(_PING_SECONDS, self._tick)
        if self._asked_at is None:
            self._asked_at = now
            self._channel.send(_PING)
        elif has_slept:
            # It was this process that did not listen.
            self._asked_at = now
        elif now - self._asked_at >= _SILENT_SECONDS and not self._is_silent:
            self._is_silent = True
            self._on_trouble("the vault is silent")
            self._give_up()

    def _give_up(self) -> None:
        for waiting in list(self._waiting.values()):
            waiting.give_up()

    def _on_lost(self, reason: str) -> None:
        self._timer.cancel()
        self._give_up()
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
        return getting.result() if getting.done() else None
    finally:
        getting.cancel()


def _lost(operation: Operation[Any] | None) -> HSMError:
    """Return what is known of a request whose answer does not come."""
    if operation is not None and operation.effect in {Effect.MUTATION, Effect.RECOVERY}:
        return OutcomeUnknownError(
            "The process that holds the keys ended before it told the outcome; send "
            "the same request again, with the same idempotency key."
        )
    return UnavailableError(
        "The process that holds the keys does not answer; it is restarted."
    )
