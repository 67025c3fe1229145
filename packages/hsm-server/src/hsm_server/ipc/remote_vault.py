# SPDX-License-Identifier: MIT
"""Vault access of a front end, over one connection to the vault process."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import socket
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final, TypeVar, cast

import msgspec

from hsm_core import wire
from hsm_core.error_records import ErrorRecord, error_from_record
from hsm_core.errors import (
    AuthenticationError,
    HSMError,
    InvalidInputError,
    OutcomeUnknownError,
    OverloadedError,
    UnavailableError,
)
from hsm_core.operations import (
    AuditPage,
    Effect,
    HSMStatus,
    ListAuditEvents,
    Operation,
    result_type,
)
from hsm_server.__about__ import __version__
from hsm_server.config.settings import MAX_TOKEN_BYTES
from hsm_server.ipc.channel import Channel
from hsm_server.ipc.frames import (
    CHUNK_BYTES,
    MAX_WAITING,
    MOST_APPROVAL_ID,
    MOST_REFUSED_KEY,
    PROTOCOL,
    Answer,
    Cancel,
    Chunk,
    Event,
    FromVault,
    Hello,
    Limits,
    Purpose,
    Request,
    cut,
    packed,
)
from hsm_server.ipc.payloads import NOTHING, Collected, pack, put_back
from hsm_server.limits.guard import ClusterLimits
from hsm_server.vault.access import (
    CancelUse,
    Known,
    Replied,
    Reply,
    SignedIn,
    Told,
    Visitor,
    Who,
    tell_nobody,
)

_CHANGES: Final = frozenset({Effect.CONSENT, Effect.MUTATION, Effect.RECOVERY})
_MOST_EVENTS: Final = 64
_MOST_ANSWER_BYTES: Final = 1024 * 1024 * 1024


class _Callback:
    """
    Callback in place of a future: an answer takes no turn of the event loop.

    Args:
        call: Called with the answer or the error.

        loop: The event loop.
    """

    __slots__ = ("_call", "_is_done", "_loop")

    def __init__(
        self,
        call: Callable[[Answer | HSMError], None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._call = call
        self._loop = loop
        self._is_done = False

    def done(self) -> bool:
        """Return whether there is an answer or an error."""
        return self._is_done

    def set_result(self, answer: Answer) -> None:
        """Pass on an answer; a fault of who takes it must not stop the others."""
        self._is_done = True
        try:
            self._call(answer)
        except Exception as error:
            self._loop.call_exception_handler(
                {"message": "A reply could not be sent.", "exception": error}
            )

    def set_exception(self, error: HSMError) -> None:
        """Pass on an error, but not from within what may have caused it."""
        self._is_done = True
        self._loop.call_soon(self._call, error)


@dataclass(slots=True)
class _Waiting:
    """Request waiting for its response."""

    kind: type[Operation[Any]] | None
    answer: asyncio.Future[Answer] | _Callback
    pieces: Collected | None = None
    payload: bytes = b""
    events: asyncio.Queue[Event] | None = None
    is_sent: bool = False

    def give_up(self) -> None:
        """Fail the request: its response will not come."""
        self.fail(_lost(self.kind if self.is_sent else None))

    def fail(self, error: HSMError) -> None:
        """Fail the request with an error."""
        if not self.answer.done():
            self.answer.set_exception(error)
            if isinstance(self.answer, asyncio.Future):
                # The caller may have gone.
                self.answer.exception()

    def keep(self, piece: bytes) -> bool:
        """Keep a piece of what comes; return whether that is not too much."""
        if self.pieces is None:
            self.pieces = Collected()
        return self.pieces.add(piece) <= _MOST_ANSWER_BYTES

    def whole(self, rest: bytes) -> bytes:
        """Return all pieces and the rest, and forget them."""
        pieces, self.pieces = self.pieces or Collected(), None
        pieces.add(rest)
        return pieces.take()


class VaultLink:
    """
    Connection to the vault: sends requests and matches responses.

    Requests fail only when the connection ends, however long the vault takes: a request
    that was sent may be executed. The supervisor ends a vault that hangs.

    Args:
        end: Connected socket; the link closes it.

        on_trouble: Called when the vault is lost.

        on_limits: See `VaultAccess.on_limits`.
    """

    def __init__(
        self,
        end: socket.socket,
        on_trouble: Callable[[str], None],
        on_limits: Callable[[ClusterLimits], None],
    ) -> None:
        self._on_trouble = on_trouble
        self._on_limits = on_limits
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

    async def ask(
        self,
        request: Request,
        kind: type[Operation[Any]] | None,
        chunks: Iterator[memoryview],
    ) -> tuple[Answer, bytes]:
        """
        Send a request, under the next id, and return its answer and the payload of it.

        Args:
            request: Its own id does not count.

            kind: The operation that it asks for, if it is one.

            chunks: Its payload; nothing here keeps one that is sent.

        Raises:
            UnavailableError: The answer will not come. Of a change, which may have been
                made, this is `OutcomeUnknownError`.
            OverloadedError: Too many wait already.
        """
        answer: asyncio.Future[Answer] = self._loop.create_future()
        waiting = self._begin(kind, answer)
        number = self._last_id
        try:
            await self._send(number, request, waiting, answer, chunks)
            return await answer, waiting.payload
        finally:
            self._end(number, answer)

    def begin(
        self,
        visitor: Visitor,
        data: bytes,
        kind: type[Operation[Any]],
        answered: Callable[[Answer | HSMError, bytes], None],
    ) -> Callable[[], object] | None:
        """
        Send an operation that needs no chunks, and return how to cancel it.

        Args:
            visitor: Who asks.

            data: The operation, packed.

            kind: What it is.

            answered: Called with the answer, or its error, and the payload of it,
                unless it is cancelled.

        Returns:
            None if too many wait already; then nothing was sent.
        """
        if len(self._waiting) >= MAX_WAITING:
            return None

        def end(answer: Answer | HSMError) -> None:
            # With what waits in a cell, each request would be a reference cycle.
            if waiting := self._waiting.pop(number, None):
                answered(answer, waiting.payload)

        def cancel() -> None:
            if self._waiting.pop(number, None) is not None:
                self._channel.send(packed(Cancel(number)))

        self._begin(kind, _Callback(end, self._loop)).is_sent = True
        number = self._last_id
        self._channel.send(packed(Request(number, Purpose.EXECUTE, visitor, data)))
        return cancel

    async def events(
        self, request: Request, operation: Operation[Any]
    ) -> AsyncGenerator[tuple[str, bytes], None]:
        """
        Send a request, and give principal and data of each event until its answer.

        Raises:
            HSMError: What the vault answered in the end; or see `ask`.
        """
        answer: asyncio.Future[Answer] = self._loop.create_future()
        waiting = self._begin(type(operation), answer)
        waiting.events = asyncio.Queue(_MOST_EVENTS)
        number = self._last_id
        try:
            await self._send(number, request, waiting, answer, iter(()))
            while True:
                event = await _next(waiting.events, answer)
                if event is None:
                    break
                yield event.principal, event.data
            found = answer.result()
            if found.error is not None:
                raise error_from_record(found.error)
        finally:
            self._end(number, answer)

    def _begin(
        self,
        kind: type[Operation[Any]] | None,
        answer: asyncio.Future[Answer] | _Callback,
    ) -> _Waiting:
        if not self.is_open:
            raise _lost(None)
        if len(self._waiting) >= MAX_WAITING:
            raise OverloadedError
        self._last_id += 1
        waiting = _Waiting(kind, answer)
        self._waiting[self._last_id] = waiting
        return waiting

    def _end(self, number: int, answer: asyncio.Future[Answer]) -> None:
        """Wait no more, and say so where the vault has not answered."""
        del self._waiting[number]
        if not answer.done() or answer.cancelled() or answer.exception():
            self._channel.send(packed(Cancel(number)))

    async def _send(
        self,
        number: int,
        request: Request,
        waiting: _Waiting,
        answer: asyncio.Future[Answer],
        payload: Iterator[memoryview],
    ) -> None:
        """Send a request while its caller waits."""
        pieces, rest = cut(request.operation)
        in_chunks = False
        for piece in chain(payload, pieces):
            in_chunks = True
            self._channel.send_chunk(number, piece)
            await self._room(answer)
            if answer.done():
                return
        request = msgspec.structs.replace(
            request, id=number, operation=rest, in_chunks=in_chunks
        )
        waiting.is_sent = True
        self._channel.send(packed(request))

    async def _room(self, answer: asyncio.Future[Answer]) -> None:
        """Wait until little is left to be sent, or the answer is given up."""
        if self._channel.has_room:
            return
        room = asyncio.ensure_future(self._channel.room())
        either: set[asyncio.Future[Any]] = {room, answer}
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
            case Limits():
                found = ClusterLimits(divisor=frame.divisor, lockouts=frame.lockouts)
                self._on_limits(found)
                return True
            case Answer() | Chunk() | Event():
                if frame.id > self._last_id:
                    return False
                waiting = self._waiting.get(frame.id)
                # What was given up may be answered all the same.
                return waiting is None or self._give(waiting, frame)

    def _give(self, waiting: _Waiting, frame: Answer | Chunk | Event) -> bool:
        if isinstance(frame, Chunk):
            return waiting.keep(frame.data)
        if frame.in_chunks != (waiting.pieces is not None):
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
                if frame.payload:
                    waiting.payload = waiting.whole(b"")
                elif frame.in_chunks:
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


def _lost(kind: type[Operation[Any]] | None) -> HSMError:
    """Return the error of a request without a response."""
    if kind is not None and kind.effect in _CHANGES:
        return OutcomeUnknownError(
            "The vault process ended before it reported the outcome. Send the "
            "same request again with the same idempotency key."
        )
    return UnavailableError(
        "The vault process does not respond and is being restarted."
    )


R = TypeVar("R")

_GREETED_SECONDS: Final = 60.0
_MOST_GREETED: Final = 4096
_MOST_KEY_CHARACTERS: Final = 1024
_MOST_SESSION_CHARACTERS: Final = 64


class RemoteVault:
    """
    Access to the vault over the last attached connection.

    Args:
        on_trouble: Called, for the log, when the vault is lost.
    """

    def __init__(self, on_trouble: Callable[[str], None]) -> None:
        self._on_trouble = on_trouble
        self._link: VaultLink | None = None
        self._greeted: OrderedDict[bytes, float] = OrderedDict()
        self._revision = 0
        self.on_limits: Callable[[ClusterLimits], None] = lambda _: None

    def attach(self, end: socket.socket) -> None:
        """Use a new connection; what waits for the former one is given up."""
        former, self._link = self._link, None
        if former is not None:
            former.close()
        self._link = VaultLink(
            end, self._on_trouble, lambda found: self.on_limits(found)
        )
        self._revision = 0

    @property
    def revision(self) -> int:
        """See `VaultAccess.revision`."""
        return self._revision

    @property
    def is_linked(self) -> bool:
        """Whether there is a connection, be it one to a vault that is busy."""
        return self._link is not None and self._link.is_open

    def close(self) -> None:
        """Close the connection."""
        if self._link is not None:
            self._link.close()

    async def greet(self, visitor: Visitor, /, *, known: Known) -> None:
        """See `VaultAccess.greet`."""
        visitor = _fitting(visitor)
        if not self._was_greeted(visitor):
            request = Request(0, Purpose.GREET, visitor)
            await self._ask(request, known)

    async def execute(
        self,
        visitor: Visitor,
        operation: Operation[R],
        /,
        *,
        idempotency_key: str | None,
        known: Known,
        approval_id: str = "",
        expected_generation: int = 0,
        told: Told = tell_nobody,
    ) -> R:
        """See `VaultAccess.execute`."""
        visitor, kind = _fitting(visitor), type(operation)
        try:
            sent = pack(operation, kind.route.raw_request)
        except UnicodeEncodeError:
            # An unauthenticated client gets no details of the fault.
            await self.greet(visitor, known=known)
            name = kind.__name__
            raise InvalidInputError(f"{name}: a field cannot be encoded.") from None
        del operation  # Its payload is kept until it is sent, and no longer.
        key = None
        if idempotency_key is not None:
            key = _sendable(idempotency_key, _MOST_KEY_CHARACTERS)
        request = Request(
            0,
            Purpose.EXECUTE,
            visitor,
            sent.packed,
            idempotency_key=key,
            approval_id=_sendable(approval_id, MOST_APPROVAL_ID),
            # What is wrong is still wrong, and no frame that ends the connection.
            expected_generation=max(-1, min(expected_generation, 2**53)),
            payload=sent.field,
        )
        answer, payload = await self._exchange(request, known, kind, told, sent.chunks)
        return cast("R", _result(kind, answer, payload))

    def begin(
        self, visitor: Visitor, operation: Operation[Any], /, replied: Replied
    ) -> CancelUse | None:
        """See `VaultAccess.begin`."""
        link = self._link
        if link is None or not link.is_open or _fitting(visitor) is not visitor:
            return None
        try:
            data = wire.encode_packed(operation)
        except UnicodeEncodeError:
            return None
        if len(data) > CHUNK_BYTES:
            return None

        kind = type(operation)

        def answered(answer: Answer | HSMError, payload: bytes) -> None:
            replied(self._reply(visitor, kind, answer, payload))

        return link.begin(visitor, data, kind, answered)

    def _reply(
        self,
        visitor: Visitor,
        kind: type[Operation[Any]],
        answer: Answer | HSMError,
        payload: bytes,
    ) -> Reply:
        """Return the reply in an answer."""
        if isinstance(answer, HSMError):
            return Reply(error=answer)
        self._revision = max(self._revision, answer.revision)
        principal, quota = answer.principal, answer.quota
        try:
            if answer.error is not None:
                raise self._error(visitor, answer.error)
            result = _result(kind, answer, payload)
        except Exception as error:
            return Reply(principal, error=error, quota=quota)
        return Reply(principal, result, quota=quota)

    def _error(self, visitor: Visitor, record: ErrorRecord) -> HSMError:
        """Return the error of an answer; who is not authenticated is greeted again."""
        error = error_from_record(record)
        if isinstance(error, AuthenticationError):
            self._greeted.pop(_digest(visitor), None)
        return error

    async def refuse(
        self, visitor: Visitor, code: str, /, *, kind: str, key_id: str, known: Known
    ) -> None:
        """See `VaultAccess.refuse`."""
        request = Request(
            0,
            Purpose.REFUSE,
            _fitting(visitor),
            code=code,
            kind=kind,
            key_id=_sendable(key_id, MOST_REFUSED_KEY),
        )
        await self._ask(request, known)

    async def follow(
        self, visitor: Visitor, operation: ListAuditEvents, /, *, known: Known
    ) -> AsyncGenerator[AuditPage, None]:
        """See `VaultAccess.follow`."""
        data = wire.encode_packed(operation)
        request = Request(0, Purpose.FOLLOW, _fitting(visitor), data)
        events = self._open_link().events(request, operation)
        async with contextlib.aclosing(events):
            async for principal, page in events:
                known(principal)
                yield wire.decode_packed(page, AuditPage)

    async def who(self, visitor: Visitor, /, *, known: Known) -> Who:
        """See `VaultAccess.who`."""
        request = Request(0, Purpose.WHO, _fitting(visitor))
        return wire.decode_packed(await self._ask(request, known), Who)

    async def sign_in(self, visitor: Visitor, /, *, known: Known) -> SignedIn:
        """See `VaultAccess.sign_in`."""
        request = Request(0, Purpose.SIGN_IN, _fitting(visitor))
        return wire.decode_packed(await self._ask(request, known), SignedIn)

    async def sign_out(self, visitor: Visitor, /, *, known: Known) -> None:
        """See `VaultAccess.sign_out`."""
        await self._ask(Request(0, Purpose.SIGN_OUT, _fitting(visitor)), known)

    async def token_keys(self) -> bytes:
        """See `VaultAccess.token_keys`."""
        return await self._ask(Request(0, Purpose.PUBLIC_KEYS, Visitor()), _nobody)

    async def status(self) -> HSMStatus:
        """See `VaultAccess.status`."""
        answer = await self._ask(Request(0, Purpose.STATUS, Visitor()), _nobody)
        return wire.decode_packed(answer, HSMStatus)

    async def _ask(self, request: Request, known: Known) -> bytes:
        answer, _ = await self._exchange(request, known)
        return answer.result

    async def _exchange(
        self,
        request: Request,
        known: Known,
        kind: type[Operation[Any]] | None = None,
        told: Told = tell_nobody,
        chunks: Iterator[memoryview] = NOTHING.chunks,
    ) -> tuple[Answer, bytes]:
        answer, payload = await self._open_link().ask(request, kind, chunks)
        self._revision = max(self._revision, answer.revision)
        if answer.principal:
            known(answer.principal)
        if answer.quota is not None:
            told(answer.quota)
        if answer.error is None:
            self._note_greeting(request.visitor)
            return answer, payload
        raise self._error(request.visitor, answer.error)

    def _open_link(self) -> VaultLink:
        if self._link is None or not self._link.is_open:
            raise UnavailableError(
                "The vault process does not respond and is being restarted."
            )
        return self._link

    def _was_greeted(self, visitor: Visitor) -> bool:
        until = self._greeted.get(_digest(visitor), 0.0)
        return asyncio.get_running_loop().time() < until

    def _note_greeting(self, visitor: Visitor) -> None:
        if not (visitor.credential or visitor.certificate):
            return
        digest = _digest(visitor)
        now = asyncio.get_running_loop().time()
        self._greeted[digest] = now + _GREETED_SECONDS
        self._greeted.move_to_end(digest)
        if len(self._greeted) > _MOST_GREETED:
            self._greeted.popitem(last=False)


def _result(kind: type[Operation[Any]], answer: Answer, payload: bytes) -> Any:
    """Return the result in an answer."""
    result: Any = wire.decode_packed(answer.result, result_type(kind))
    if answer.payload:
        field = kind.route.raw_response
        result = put_back(result, answer.payload, field, payload)
    return result


def _digest(visitor: Visitor) -> bytes:
    parts = (visitor.credential.encode(), visitor.certificate, visitor.session.encode())
    return b"".join(hashlib.sha256(part).digest() for part in parts)


def _fitting(visitor: Visitor) -> Visitor:
    """
    Return a visitor whom a frame can hold.

    Return a visitor that fits into a frame. A token that is too long is invalid anyway.
    """
    credential, session = visitor.credential, visitor.session
    if len(credential) <= MAX_TOKEN_BYTES and not session:
        return visitor
    return msgspec.structs.replace(
        visitor,
        credential=credential[: MAX_TOKEN_BYTES + 1],
        session=_sendable(session, _MOST_SESSION_CHARACTERS),
    )


def _sendable(text: str, longest: int) -> str:
    """Return text that a frame can hold, and that is still wrong if it was wrong."""
    whole = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    return whole[:longest]


def _nobody(principal: str) -> None:
    """Ignore the event."""
