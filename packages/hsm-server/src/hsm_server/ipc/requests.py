# SPDX-License-Identifier: MIT
"""Requests in the vault: assembly of chunks, individual execution, outbox."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any, Final

import msgspec

from hsm_core import wire
from hsm_core.error_records import error_record
from hsm_core.errors import (
    AuthenticationError,
    HSMError,
    OverloadedError,
    PayloadTooLargeError,
)
from hsm_core.model import Caller
from hsm_core.operations import ListAuditEvents
from hsm_core.protocols import AsyncHSMGateway
from hsm_server.ipc.channel import Channel
from hsm_server.ipc.frames import (
    CHUNK_BYTES,
    MAX_WAITING,
    Answer,
    Event,
    Request,
    cut,
    packed,
)
from hsm_server.ipc.payloads import NOTHING, Collected, Outgoing
from hsm_server.vault.access import Visitor
from hsm_server.vault.gatekeeper import Gatekeeper

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

    def send(self, answer: Answer, sent: Outgoing = NOTHING) -> None:
        """
        Send an answer; who reads none of the long ones loses the connection.

        Args:
            answer: Its result is that of *sent*, if this has a payload.

            sent: Payload of the result.
        """
        size = sent.size + len(answer.result)
        if size <= CHUNK_BYTES or not self._channel.is_open:
            self._channel.send(packed(answer))
            return
        self._owed_bytes += size
        if self._owed_bytes > self._most_owed:
            self._channel.close("reads nothing")
            return
        task = self._loop.create_task(self._send_long(answer, sent.chunks))
        self._sending[answer.id] = task
        task.add_done_callback(partial(self._note_sent, answer.id, size))

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

    async def _send_long(self, answer: Answer, payload: Iterator[memoryview]) -> None:
        rest = answer.result
        if answer.payload:
            await self._send_chunks(answer.id, payload)
        else:
            rest = await self._send_pieces(answer.id, rest)
        last = msgspec.structs.replace(answer, result=rest, in_chunks=True)
        self._channel.send(packed(last))

    async def _send_pieces(self, number: int, data: bytes) -> bytes:
        """Send all but the rest of something long, and return that."""
        pieces, rest = cut(data)
        await self._send_chunks(number, pieces)
        return rest

    async def _send_chunks(self, number: int, chunks: Iterator[memoryview]) -> None:
        for chunk in chunks:
            self._channel.send_chunk(number, chunk)
            await self._channel.room()


_MOST_AT_ONCE: Final = 8


class Assemblies:
    """
    Bounded chunks of one connection.

    An operation counts from its first chunk until it is dropped, after its response.

    Args:
        longest: Longest operation, in bytes. All that are under way together may be
            eight times as long.
    """

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._pieces: dict[int, Collected] = {}
        self._refused: dict[int, HSMError] = {}
        self._sizes: dict[int, int] = {}
        self._total = 0

    def __contains__(self, number: int) -> bool:
        return number in self._pieces

    @property
    def is_full(self) -> bool:
        """Whether no further operation may be begun."""
        return len(self._pieces) >= MAX_WAITING

    def add(self, number: int, piece: bytes) -> None:
        """Keep a piece; of an operation that becomes too much, nothing is kept."""
        pieces = self._pieces.setdefault(number, Collected())
        if number in self._refused:
            return
        try:
            self._count(number, len(piece))
        except HSMError as error:
            self._pieces[number] = Collected()
            self._refused[number] = error
        else:
            pieces.add(piece)

    def complete(self, number: int, rest: bytes) -> bytes:
        """
        Return a whole operation or payload, and keep nothing but its size.

        Raises:
            PayloadTooLargeError: It is too long.
            OverloadedError: There was too much under way together.
        """
        pieces = self._pieces.pop(number, None)
        error = self._refused.pop(number, None)
        if error is not None:
            raise error
        self._count(number, len(rest))
        if pieces is None:
            return rest
        pieces.add(rest)
        # Not copied: for as long as that takes, nobody is answered.
        return pieces.take()

    def drop(self, number: int) -> None:
        """Forget an operation."""
        self._pieces.pop(number, None)
        self._refused.pop(number, None)
        self._total -= self._sizes.pop(number, 0)

    def clear(self) -> None:
        """Forget everything."""
        self._pieces.clear()
        self._refused.clear()
        self._sizes.clear()
        self._total = 0

    def _count(self, number: int, more: int) -> None:
        """
        Count bytes in; of an operation that is refused, none count any more.

        Raises:
            HSMError: See `complete`.
        """
        size = self._sizes.get(number, 0) + more
        total = self._total + more
        if size <= self._longest and total <= self._longest * _MOST_AT_ONCE:
            self._sizes[number], self._total = size, total
            return
        self._total -= self._sizes.pop(number, 0)
        if size > self._longest:
            raise PayloadTooLargeError("operation", actual=size, maximum=self._longest)
        raise OverloadedError


class IndividualRequests:
    """
    Requests that are not executed in batches.

    Args:
        gateway: The HSM.

        gatekeeper: Authenticates visitors, and holds sessions.

        outbox: Sends the events of live views.
    """

    def __init__(
        self, gateway: AsyncHSMGateway, gatekeeper: Gatekeeper, outbox: Outbox
    ) -> None:
        self._gateway = gateway
        self._gatekeeper = gatekeeper
        self._outbox = outbox

    async def fail(
        self, number: int, visitor: Visitor, error: AuthenticationError
    ) -> Answer:
        """Record and return an authentication failure."""
        await self._gatekeeper.record_failure(visitor, error)
        return Answer(number, error=error_record(error))

    async def status(self, frame: Request) -> Answer:
        """Return the health of the HSM."""
        return Answer(frame.id, result=wire.encode_packed(await self._gateway.status()))

    async def refuse(self, frame: Request, caller: Caller) -> Answer:
        """Record what the front end itself has refused."""
        await self._gateway.record_refusal(
            caller, frame.code, kind=frame.kind, key_id=frame.key_id
        )
        return Answer(frame.id, caller.principal)

    async def sign_in(self, frame: Request, caller: Caller) -> Answer:
        """Begin a session."""
        signed_in = await self._gatekeeper.sign_in(frame.visitor, caller)
        return Answer(frame.id, caller.principal, wire.encode_packed(signed_in))

    async def sign_out(self, frame: Request, caller: Caller) -> Answer:
        """End a session."""
        await self._gatekeeper.sign_out(frame.visitor, caller)
        return Answer(frame.id, caller.principal)

    async def follow(
        self, frame: Request, caller: Caller, view: ListAuditEvents
    ) -> Answer:
        """Send what the trail records, as long as who asks is let in."""
        pages = self._gatekeeper.while_good(
            frame.visitor, self._gateway.act_as(caller).follow(view)
        )
        async with contextlib.aclosing(pages):
            async for page in pages:
                data = wire.encode_packed(page)
                await self._outbox.send_event(frame.id, caller.principal, data)
        return Answer(frame.id, caller.principal)
