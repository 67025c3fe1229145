# SPDX-License-Identifier: MIT
"""The vault's side of its connections to front ends, of which it believes little."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from hsm_core import wire
from hsm_core.errors import AuthenticationError, HSMError, OverloadedError
from hsm_core.model import Caller
from hsm_core.operations import ListAuditEvents, Status
from hsm_core.protocols import AsyncHSMGateway
from hsm_core.protocols import Request as CoreRequest
from hsm_server.__about__ import __version__
from hsm_server.access import Visitor
from hsm_server.gatekeeper import Gatekeeper
from hsm_server.ipc.assembly import Assemblies
from hsm_server.ipc.channel import Channel
from hsm_server.ipc.frames import (
    MAX_WAITING,
    PROTOCOL,
    Answer,
    Cancel,
    Chunk,
    Event,
    FromFrontEnd,
    Hello,
    Ping,
    Pong,
    Purpose,
    Request,
    cut,
    packed,
)
from hsm_server.local_vault import PROBE

__all__ = ["Surroundings", "VaultService"]

_PONG: Final = packed(Pong())
_HELLO: Final = packed(Hello(PROTOCOL, __version__))


@dataclass(frozen=True, slots=True)
class Surroundings:
    """
    Who is told of what is no answer.

    Attributes:
        on_violation: The reason why a front end's connection was ended.
        on_unexpected: An exception that nobody thought of; its request fails.
    """

    on_violation: Callable[[str], None]
    on_unexpected: Callable[[BaseException], None]


class _Violation(Exception):  # noqa: N818 (it is no error of ours)
    """A frame that no front end of ours sends."""


class VaultService:
    """
    Executes what front ends send.

    Args:
        gateway: The HSM, which stays the caller's to close.

        gatekeeper: Decides who a visitor is.

        longest: Longest operation, packed, in bytes.

        surroundings: Who is told of the rest.
    """

    def __init__(
        self,
        gateway: AsyncHSMGateway,
        gatekeeper: Gatekeeper,
        longest: int,
        surroundings: Surroundings,
    ) -> None:
        self._gateway = gateway
        self._gatekeeper = gatekeeper
        self._longest = longest
        self._surroundings = surroundings
        self._connections: set[_Connection] = set()

    def connect(self, end: socket.socket, peer_uid: int) -> None:
        """Serve a front end that runs as this user, until its connection ends."""
        connection = _Connection(
            end,
            peer_uid,
            self._gateway,
            self._gatekeeper,
            Assemblies(self._longest),
            self._surroundings,
            self._connections.discard,
        )
        self._connections.add(connection)

    def close(self) -> None:
        """End all connections."""
        for connection in list(self._connections):
            connection.close()


class _Connection:
    """One front end."""

    def __init__(
        self,
        end: socket.socket,
        peer_uid: int,
        gateway: AsyncHSMGateway,
        gatekeeper: Gatekeeper,
        assemblies: Assemblies,
        surroundings: Surroundings,
        on_end: Callable[[_Connection], None],
    ) -> None:
        self._gateway = gateway
        self._gatekeeper = gatekeeper
        self._assemblies = assemblies
        self._surroundings = surroundings
        self._on_end = on_end
        self._greeted = False
        self._last_id = 0
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._sending: set[asyncio.Task[None]] = set()
        self._channel: Channel[FromFrontEnd] = Channel(
            end, FromFrontEnd, self._take, self._on_lost, peer_uid=peer_uid
        )
        self._channel.send(_HELLO)

    def close(self) -> None:
        """End it; what was not begun is not done."""
        self._channel.close()

    def _on_lost(self, reason: str) -> None:
        for future in list(self._waiting.values()):
            future.cancel()
        for task in self._sending:
            task.cancel()
        self._assemblies.clear()
        self._on_end(self)
        if reason not in {"closed", "gone"}:
            self._surroundings.on_violation(reason)

    def _take(self, frames: list[FromFrontEnd]) -> None:
        """Take all frames in, and execute together what they ask for."""
        batch: list[tuple[int, CoreRequest]] = []
        try:
            for frame in frames:
                asked = self._accept(frame)
                if asked is not None:
                    batch.append(asked)
        except _Violation as violation:
            self._channel.close(str(violation))
            return
        self._execute(batch)

    def _accept(self, frame: FromFrontEnd) -> tuple[int, CoreRequest] | None:
        if not self._greeted:
            if not isinstance(frame, Hello) or frame.protocol != PROTOCOL:
                raise _Violation("another protocol")
            self._greeted = True
            return None
        match frame:
            case Ping():
                self._channel.send(_PONG)
            case Chunk():
                if frame.id not in self._assemblies:
                    self._check_next(frame.id)
                    if self._assemblies.is_full:
                        raise _Violation("too many requests at one time")
                self._assemblies.add(frame.id, frame.data)
            case Request():
                return self._begin(frame)
            case Cancel():
                self._cancel(frame.id)
            case Hello():
                raise _Violation("a second greeting")
        return None

    def _check_next(self, number: int) -> None:
        if number <= self._last_id:
            raise _Violation("a repeated id")
        self._last_id = number

    def _cancel(self, number: int) -> None:
        if number > self._last_id:
            raise _Violation("an id that was never used")
        self._assemblies.drop(number)
        future = self._waiting.get(number)
        if future is not None:
            future.cancel()

    def _begin(self, frame: Request) -> tuple[int, CoreRequest] | None:
        """Return what is to be executed; begin everything else, or answer it."""
        if frame.in_chunks != (frame.id in self._assemblies):
            raise _Violation("chunks without a request, or the reverse")
        if not frame.in_chunks:
            self._check_next(frame.id)
        try:
            if len(self._waiting) >= MAX_WAITING:
                raise OverloadedError
            operation = self._assemblies.complete(frame.id, frame.operation)
            return self._sort(frame, operation)
        except AuthenticationError as error:
            self._start(frame.id, self._fail(frame.id, frame.visitor, error))
        except HSMError as error:
            self._send(Answer(frame.id, error=wire.error_record(error)))
        return None

    def _sort(self, frame: Request, operation: bytes) -> tuple[int, CoreRequest] | None:
        """
        Begin a request by its purpose, or return it for the batch.

        Raises:
            HSMError: It is answered with this error.
        """
        if frame.purpose is Purpose.STATUS:
            return frame.id, CoreRequest(PROBE, Status())
        caller = self._gatekeeper.caller(frame.visitor)
        match frame.purpose:
            case Purpose.EXECUTE:
                asked = CoreRequest(
                    caller,
                    wire.decode_packed_operation(operation),
                    frame.idempotency_key,
                )
                return frame.id, asked
            case Purpose.GREET:
                self._send(Answer(frame.id, caller.principal))
            case Purpose.REFUSE:
                self._start(frame.id, self._refuse(frame, caller))
            case Purpose.FOLLOW:
                view = wire.decode_packed(operation, ListAuditEvents)
                self._start(frame.id, self._follow(frame, caller, view))
        return None

    def _execute(self, batch: Sequence[tuple[int, CoreRequest]]) -> None:
        if not batch:
            return
        futures = self._gateway.execute_many([asked for _, asked in batch])
        for (number, asked), future in zip(batch, futures, strict=True):
            self._waiting[number] = future
            principal = "" if asked.caller is PROBE else asked.caller.principal
            future.add_done_callback(partial(self._answer, number, principal))

    def _start(self, number: int, work: Coroutine[Any, Any, Answer]) -> None:
        """Begin something that takes time and ends in an answer."""
        task = asyncio.get_running_loop().create_task(work)
        self._waiting[number] = task
        task.add_done_callback(partial(self._conclude, number))

    def _conclude(self, number: int, task: asyncio.Future[Answer]) -> None:
        self._waiting.pop(number, None)
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            self._send(task.result())
        else:
            self._send_error(number, "", error)

    async def _fail(
        self, number: int, visitor: Visitor, error: AuthenticationError
    ) -> Answer:
        await self._gatekeeper.record_failure(visitor, error)
        return Answer(number, error=wire.error_record(error))

    async def _refuse(self, frame: Request, caller: Caller) -> Answer:
        await self._gateway.record_refusal(
            caller, frame.code, kind=frame.kind, key_id=frame.key_id
        )
        return Answer(frame.id, caller.principal)

    async def _follow(
        self, frame: Request, caller: Caller, view: ListAuditEvents
    ) -> Answer:
        pages = self._gatekeeper.while_good(
            frame.visitor, self._gateway.act_as(caller).follow(view)
        )
        async with contextlib.aclosing(pages):
            async for page in pages:
                pieces, rest = cut(data := wire.encode_packed(page))
                for piece in pieces:
                    self._channel.send(packed(Chunk(frame.id, piece)))
                    await self._channel.room()
                in_chunks = len(rest) < len(data)
                self._send(Event(frame.id, caller.principal, rest, in_chunks=in_chunks))
                await self._channel.room()
        return Answer(frame.id, caller.principal)

    def _answer(self, number: int, principal: str, future: asyncio.Future[Any]) -> None:
        self._waiting.pop(number, None)
        if future.cancelled():
            return
        error = future.exception()
        if error is not None:
            self._send_error(number, principal, error)
            return
        self._send(Answer(number, principal, wire.encode_packed(future.result())))

    def _send_error(self, number: int, principal: str, error: BaseException) -> None:
        if not isinstance(error, HSMError):
            self._surroundings.on_unexpected(error)
            error = HSMError()
        record = wire.error_record(error)
        self._send(Answer(number, principal, error=record))

    def _send(self, frame: Answer | Event) -> None:
        """Send a frame; a long answer goes in pieces, so that others pass it."""
        if isinstance(frame, Answer):
            pieces, rest = cut(frame.result)
            if len(rest) < len(frame.result):
                task = asyncio.get_running_loop().create_task(
                    self._send_pieces(list(pieces), frame, rest)
                )
                self._sending.add(task)
                task.add_done_callback(self._sending.discard)
                return
        self._channel.send(packed(frame))

    async def _send_pieces(
        self, pieces: list[bytes], frame: Answer, rest: bytes
    ) -> None:
        for piece in pieces:
            self._channel.send(packed(Chunk(frame.id, piece)))
            await self._channel.room()
        last = Answer(frame.id, frame.principal, rest, in_chunks=True)
        self._channel.send(packed(last))
