# SPDX-License-Identifier: MIT
"""
Live view of the audit log as server-sent events (HTML, section 9.2).

The ID of each event is the ``start_seq`` of the rest of the view, or in a cluster its
``cursor``, so ``Last-Event-ID`` resumes a view without gap or repetition.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator, Callable
from typing import Final, TypeAlias

from aiohttp import web
from msgspec.structs import replace

from hsm_core import wire
from hsm_core.model import AuditEntry
from hsm_core.operations import FROM_NOW, AuditPage, ListAuditEvents, cursor_after
from hsm_server.http.middleware import note_failure
from hsm_server.http.problems import problem_response
from hsm_server.http.state import IN_FLIGHT, VAULT, Exchange
from hsm_server.limits.pacing import with_pauses
from hsm_server.vault.access import Visitor

Encode: TypeAlias = Callable[[AuditEntry], bytes]
"""Encodes an entry as the data of its event."""

LIVE_VIEW: Final = "live_view"
"""How log and metrics call it; it is the one operation that takes hours."""

_KEEP_ALIVE_SECONDS: Final = 15.0
_KEEP_ALIVE: Final = b": nothing new\n\n"
_WRITE_SECONDS: Final = 30.0
"""Time without any read after which a client counts as gone."""

_LINE_BREAK: Final = re.compile(rb"\r\n|\r|\n")
"""Line endings of an event stream."""

_HEADERS: Final = {
    "Content-Type": "text/event-stream",
    # Proxies that collect an answer before they pass it on would hold up a live view.
    "X-Accel-Buffering": "no",
}


async def answer_live_view(
    request: web.Request,
    visitor: Visitor,
    operation: ListAuditEvents,
    exchange: Exchange,
    *,
    encode: Encode = wire.encode_json,
) -> web.StreamResponse:
    """
    Answer with events until the client leaves, or the server has reason to end it.

    Args:
        request: What is answered.

        visitor: Who asks.

        operation: What to show; without *start_seq* and *cursor*, what is recorded from
            now on.

        exchange: The notes of the request.

        encode: How entries are written.

    Raises:
        HSMError: The view could not begin. Later errors are events.
    """
    pages = await _follow(request, visitor, operation, exchange)
    async with contextlib.aclosing(pages):
        page = await anext(pages)
        first = _events(page, operation.cursor, encode)

        async def parts() -> AsyncGenerator[bytes, None]:
            yield first
            cursor = page.next_cursor
            async for following in pages:
                yield _events(following, cursor, encode)
                cursor = following.next_cursor

        return await answer_events(request, exchange, parts())


async def answer_events(
    request: web.Request, exchange: Exchange, parts: AsyncGenerator[bytes, None]
) -> web.StreamResponse:
    """
    Send events until they end, the client leaves, or the server stops.

    An error is the last event.

    Args:
        request: The request.

        exchange: Log and metrics data of the request.

        parts: The events.
    """
    response = web.StreamResponse(headers=_HEADERS)
    with contextlib.suppress(ConnectionError):
        await response.prepare(request)
        if request.method == "HEAD":
            await parts.aclose()
            return response
        try:
            with request.app[IN_FLIGHT].endless(request.protocol) as ends:
                paced = with_pauses(parts, lambda: _KEEP_ALIVE_SECONDS, ends=ends)
                async with contextlib.aclosing(paced):
                    async for part in paced:
                        data = _KEEP_ALIVE if part is None else part
                        await _write(request, response, data)
        except ConnectionError:
            raise
        except Exception as error:
            known = note_failure(request.app, error, exchange)
            problem = problem_response(known, exchange.request_id).body
            assert isinstance(problem, bytes)  # noqa: S101 (for the type checker)
            await _write(request, response, event("problem", problem))
    return response


async def _follow(
    request: web.Request,
    visitor: Visitor,
    operation: ListAuditEvents,
    exchange: Exchange,
) -> AsyncGenerator[AuditPage, None]:
    vault = request.app[VAULT]
    if operation.start_seq is None and not operation.cursor:
        # An unauthenticated client must not make the vault compute anything.
        await vault.greet(visitor, known=exchange.know)
        status = await vault.status()
        if status.cluster.node and not operation.log_id:
            operation = replace(operation, cursor=FROM_NOW)
        else:
            operation = replace(operation, start_seq=status.audit.head_seq + 1)
    return vault.follow(visitor, operation, known=exchange.know)


async def _write(
    request: web.Request, response: web.StreamResponse, data: bytes
) -> None:
    """
    Send a part of the answer.

    Raises:
        ConnectionError: The client is gone, or takes nothing.
    """
    try:
        async with asyncio.timeout(_WRITE_SECONDS):
            await response.write(data)
    except TimeoutError:
        if request.transport is not None:
            request.transport.abort()
        raise ConnectionResetError("The client does not read.") from None


def _events(page: AuditPage, cursor: str, encode: Encode) -> bytes:
    """
    Return entries as events, and where to go on, which is no event by itself.

    Args:
        page: Its entries.

        cursor: Where the page began, if it is one of several logs.

        encode: How entries are written.
    """
    found = []
    for entry in page.items:
        position = str(entry.event.seq + 1)
        if page.next_cursor:
            position = cursor = cursor_after(cursor, entry)
        found.append(f"id: {position}\n".encode() + event("entry", encode(entry)))
    position = page.next_cursor or str(page.next_seq)
    return b"".join(found) + f"id: {position}\n\n".encode()


def event(kind: str, data: bytes) -> bytes:
    """Return an event; each line of the data is one of the event."""
    # Whatever is written down, no line of it may become a field of its own.
    lines = b"".join(b"data: " + line + b"\n" for line in _LINE_BREAK.split(data))
    return f"event: {kind}\n".encode() + lines + b"\n"
