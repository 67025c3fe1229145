# SPDX-License-Identifier: MIT
"""
HTTP connection: time limits, slow clients, and errors outside the middleware.

Under TLS no transport reports the unsent part of a response: neither asyncio nor uvloop
exposes encrypted data that waits. The kernel knows which data was acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import secrets
import socket
import sys
import termios
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol

from aiohttp import HttpVersion10, HttpVersion11, StreamReader, web
from aiohttp.http_parser import RawRequestMessage
from aiohttp.streams import EmptyStreamReader

from hsm_core.errors import MalformedError
from hsm_server.http.fast_path import FastPath, Use, read_head
from hsm_server.http.middleware import turn_away
from hsm_server.http.problems import RequestRefusedError, problem_response
from hsm_server.http.requests import refuse_expectation
from hsm_server.http.responses import COMMON_HEADERS, REQUEST_ID_HEADER, Parts
from hsm_server.http.state import (
    IN_FLIGHT,
    LOGGER,
    METRICS,
    SETTINGS,
    Exchange,
    exchange_of,
)
from hsm_server.observability.places import location

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
        """Start to watch a client that has not read everything."""
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
        """Wait until a client has received everything, or the connection ends."""
        self.watch(transport)
        try:
            while not (transport.is_closing() or _is_all_taken(transport)):
                await asyncio.sleep(_LOOK_SECONDS)
        finally:
            self.end()


def _taken_bytes(transport: asyncio.WriteTransport) -> int:
    """
    Return a number that grows with each byte that a client receives.

    Without TCP, the data left in the transport determines it.
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

    While a transport has data left, the kernel's queue is not empty.
    """
    connection: Any = transport.get_extra_info("socket")
    queued = bytearray(4)
    try:
        fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, queued)
    except (AttributeError, OSError, ValueError):
        return True
    return not any(queued) and not transport.get_write_buffer_size()


_VERSIONS: Final = {HttpVersion10, HttpVersion11}
"""Versions of responses; the parser accepts others."""

_LARGE_BYTES: Final = 64 * 1024
"""Longer responses may exceed the kernel's buffer of a closed connection."""


class Admitting(Protocol):
    """Admission check of new connections."""

    def needs_check(self, transport: asyncio.BaseTransport) -> bool:
        """Return whether a client must be checked."""

    async def admit(
        self, transport: asyncio.BaseTransport, connection: Connection
    ) -> Callable[[], None] | None:
        """Return the callback for the end of a connection; None rejects it."""


class _Written(web.StreamResponse):
    """Placeholder for a response already written, on a connection that stays open."""

    @property
    def keep_alive(self) -> bool:
        """Whether the connection stays open."""
        return True


_WRITTEN: Final = _Written()

_BODY_SECONDS: Final = 0.5
"""Time for a body to arrive before its request takes the normal path."""


def _peek(payload: StreamReader) -> bytes:
    """Return a body that has arrived, and leave it to be read."""
    if isinstance(payload, EmptyStreamReader):
        return b""
    return b"".join(payload._buffer)  # noqa: SLF001 (reading resumes the parser)


class Connection(web.RequestHandler):
    """
    HTTP connection with the server's error responses and time limits.

    It also closes when the head of a request is late (counted from the start of the
    connection, later from the first byte), when the client does not read, or when the
    client is no longer accepted.

    Args:
        manager: Manager of all connections of a server.

        app: Application with limits, metrics and log.

        fast_path: Fast path of the same application; None without one.

        on_lost: Called when the connection is gone, possibly several times.

        is_current: Returns whether the client of a transport is still accepted.

        admission: Admission check after the handshake; None accepts all clients.

        options: Options of the base class.
    """

    __slots__ = (
        "_admission",
        "_admitting",
        "_app",
        "_body_timer",
        "_closing",
        "_end_following",
        "_fast_path",
        "_head_timer",
        "_held",
        "_is_current",
        "_is_retired",
        "_on_lost",
        "_resting",
        "_taking",
        "_use",
    )

    def __init__(
        self,
        manager: web.Server,
        app: web.Application,
        fast_path: FastPath | None,
        on_lost: Callable[[Connection], None],
        is_current: Callable[[asyncio.BaseTransport], bool],
        admission: Admitting | None = None,
        **options: Any,
    ) -> None:
        super().__init__(manager, **options)
        self._app = app
        self._on_lost = on_lost
        self._is_current = is_current
        self._is_retired = False
        self._admission = admission
        self._admitting: asyncio.Task[None] | None = None
        self._held: list[bytes] | None = None
        self._end_following: Callable[[], None] = lambda: None
        self._head_timer: asyncio.TimerHandle | None = None
        self._taking = SlowClientCheck(self._loop)
        self._fast_path = fast_path
        self._use: Use | None = None
        self._body_timer: asyncio.TimerHandle | None = None
        self._closing: asyncio.Task[None] | None = None
        self._resting: asyncio.Future[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the time limit of the first head, if the client is still accepted."""
        super().connection_made(transport)
        if not self._is_current(transport):
            self.force_close()
            return
        self._begin_head()
        admission = self._admission
        if admission is not None and admission.needs_check(transport):
            self._held = []
            self._transport().pause_reading()
            self._admitting = self._loop.create_task(self._admit(admission, transport))

    async def _admit(
        self, admission: Admitting, transport: asyncio.BaseTransport
    ) -> None:
        """Process the data received meanwhile, or close."""
        end_following = await admission.admit(transport, self)
        if end_following is None:
            self.force_close()
            return
        self._end_following = end_following
        held, self._held = self._held or [], None
        for data in held:
            self.data_received(data)
        if not self._reading_paused:
            self._transport().resume_reading()

    def _transport(self) -> asyncio.Transport:
        if self.transport is None:
            raise AssertionError("An open connection must have a transport.")
        return self.transport

    def data_received(self, data: bytes) -> None:
        """Process received data; a head must be complete in time."""
        if self._held is not None:
            self._held.append(data)
            return
        if self._is_retired and self._is_waiting:
            self.force_close()
        heads = self._request_count
        self._receive(data)
        if self._request_count != heads:
            self._end_head()
            self._end_broken_body()
        elif data and self._is_waiting:
            self._begin_head()

    def _receive(self, data: bytes) -> None:
        """Parse data; begin the request of a connection that waits for one."""
        if self._body_timer is not None:
            super().data_received(data)
            if self._messages[0][1].is_eof():
                self._end_body_wait()
            return
        resting = self._waiter
        if resting is None or resting.done() or self._fast_path is None:
            super().data_received(data)
            return
        # Without its waiter, the base class begins nothing.
        self._waiter = None
        try:
            super().data_received(data)
        finally:
            self._waiter = resting
        if self._messages:
            self._begin_next(resting)

    def _begin_next(self, resting: asyncio.Future[None]) -> None:
        """Begin a request on the fast path, or let the base class do it."""
        self._waiter, self._resting = None, resting
        if not self._begin_fast():
            self._begin_normal()

    def _begin_normal(self) -> None:
        """Let the base class begin the request."""
        self._waiter, self._resting = self._resting, None
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _begin_fast(self) -> bool:
        """Begin a request on the fast path; return whether it takes it."""
        message, payload = self._messages[0]
        if not isinstance(message, RawRequestMessage):
            return False
        if self._is_retired or self._paused or self._buffer_paused:
            return False
        head = read_head(message)
        if head is None or self._fast_path is None:
            return False
        if not payload.is_eof():
            if self._fast_path.is_expected(self, head):
                self._begin_body_wait()
            return self._body_timer is not None
        self._use = self._fast_path.begin(self, head, _peek(payload))
        if self._use is None:
            return False
        self._messages.popleft()
        if self._parser is not None:
            self._parser.message_consumed()
        self._app[IN_FLIGHT].begin(self)
        return True

    def _begin_body_wait(self) -> None:
        """Wait a moment for the body: many clients send it after the head."""
        self._app[IN_FLIGHT].begin(self)
        self._body_timer = self._loop.call_later(_BODY_SECONDS, self._end_body_wait)

    def _end_body_wait(self) -> None:
        """Begin the request whose body was waited for, or whose time is over."""
        if self._body_timer is not None:
            self._body_timer.cancel()
            self._body_timer = None
        has_body = self._messages[0][1].is_eof()
        if not (has_body and self._begin_fast()):
            self._begin_normal()

    def _give_up_body_wait(self) -> None:
        """Count and log the request whose body does not come any more."""
        timer, self._body_timer = self._body_timer, None
        if timer is None or self._fast_path is None:
            return
        timer.cancel()
        message, _ = self._messages[0]
        head = read_head(message) if isinstance(message, RawRequestMessage) else None
        if head is not None:
            waited = self._loop.time() - timer.when() + _BODY_SECONDS
            self._fast_path.note_lost(self, head, waited)

    def finish(self, response: Parts, exchange: Exchange) -> None:
        """Send the response to the request on the fast path; begin the next one."""
        self._use = None
        in_flight, transport = self._app[IN_FLIGHT], self.transport
        closes = self._is_retired or in_flight.is_draining
        try:
            if transport is None:
                return
            transport.write(response.complete(exchange, closes=closes))
            if not closes:
                self._rest()
            elif len(response.body) > _LARGE_BYTES:
                self._closing = self._loop.create_task(self._close_when_taken())
            else:
                self.force_close()
        finally:
            in_flight.end(self)

    def _rest(self) -> None:
        """Wait for the next request, or begin it."""
        resting, self._resting = self._resting, None
        if resting is None:
            raise AssertionError("A request must begin while its connection rests.")
        closes_at = self._loop.time() + self._keepalive_timeout
        self._next_keepalive_close_time = closes_at
        if self._keepalive_handle is None:
            self._keepalive_handle = self._loop.call_at(
                closes_at, self._process_keepalive
            )
        if self._messages:
            self._begin_next(resting)
        else:
            self._waiter = resting

    async def _close_when_taken(self) -> None:
        """Close when the client has received a long response."""
        if self.transport is not None:
            await self._taking.wait(self.transport)
        self.force_close()

    def _end_broken_body(self) -> None:
        """Fail the body of a broken request; stop reading."""
        last, _ = self._messages[-1] if self._messages else (None, None)
        if last is None or isinstance(last, RawRequestMessage):
            return
        request = self._current_request
        bodies = [request.content] if request is not None else []
        for body in (*bodies, *(body for _, body in self._messages)):
            if not body.is_eof():
                self._is_retired = True
                body.set_exception(web.RequestPayloadError("The request is malformed."))
                body.feed_eof()

    @property
    def _is_waiting(self) -> bool:
        """Whether the connection waits for a request."""
        return self._waiter is not None and not self._waiter.done()

    def _begin_head(self) -> None:
        if self._head_timer is None:
            seconds = self._app[SETTINGS].limits.head_timeout_seconds
            self._head_timer = self._loop.call_later(seconds, self.force_close)

    def _end_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def pause_writing(self) -> None:
        """Stop writing until the client has read some data, which has a time limit."""
        super().pause_writing()
        if self.transport is not None:
            self._taking.watch(self.transport)

    def resume_writing(self) -> None:
        """Continue writing."""
        super().resume_writing()
        self._taking.end()

    async def _handle_request(
        self,
        request: web.BaseRequest,
        start_time: float | None,
        request_handler: Callable[[Any], Awaitable[web.StreamResponse]],
    ) -> tuple[web.StreamResponse, bool]:
        """Handle a request, or reject it early."""
        answer = None
        could_be_read = request_handler is self._request_handler
        if could_be_read and isinstance(request, web.Request) and not self._is_retired:
            answer = turn_away(request, self._app)
        if answer is None:
            return await super()._handle_request(request, start_time, request_handler)
        self._transport().write(answer)
        self._app[IN_FLIGHT].end(self)
        await self._drain_helper()
        return _WRITTEN, False

    async def finish_response(
        self,
        request: web.BaseRequest,
        resp: web.StreamResponse,
        start_time: float | None,
    ) -> tuple[web.StreamResponse, bool]:
        """Send a response; before a close, wait until the client has received it."""
        if isinstance(resp, web.HTTPException) and isinstance(request, web.Request):
            # The route does not exist: no middleware has run.
            resp = refuse_expectation(request)
        if request.version not in _VERSIONS:
            request._cache["version"] = HttpVersion10  # noqa: SLF001 (read once)
            resp.force_close()
        if self._is_retired:
            resp.force_close()
        try:
            resp, is_lost = await super().finish_response(request, resp, start_time)
            is_long = request.writer.output_size > _LARGE_BYTES
            if is_long and not resp.keep_alive and self.transport is not None:
                # After a close, the kernel soon drops data that was not acknowledged.
                await self._taking.wait(self.transport)
            # The base class keeps it as long as the connection is idle.
            return _WRITTEN if resp.keep_alive else resp, is_lost
        finally:
            self._app[IN_FLIGHT].end(self)

    def retire_unless_current(self) -> None:
        """Retire if the client is no longer accepted."""
        transport = self.transport
        if transport is not None and not self._is_current(transport):
            self.retire()

    @property
    def is_retired(self) -> bool:
        """Whether it closes after the current request, which may not begin any more."""
        return self._is_retired

    def retire(self) -> None:
        """Close after the response to the current request."""
        self._is_retired = True
        if self._is_waiting or not self._request_count:
            self.force_close()
        self._app[IN_FLIGHT].end_stream(self)

    def forget(self) -> None:
        """Remove the connection from the listener's count."""
        self._on_lost(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Cancel the request: its response is no longer needed."""
        self._end_head()
        self._taking.end()
        if self._admitting is not None:
            self._admitting.cancel()
        self._end_following()
        self._give_up_body_wait()
        use, self._use = self._use, None
        if use is not None:
            use.cancel()
        self._app[IN_FLIGHT].end(self)
        self.forget()
        super().connection_lost(exc)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Respond to malformed HTTP, or to an error outside the middleware."""
        if request.writer.output_size > 0:
            raise ConnectionError("A response was already started.")
        exchange = exchange_of(request) if isinstance(request, web.Request) else None
        if (
            exchange is None
            and isinstance(request, web.Request)
            and "Expect" in request.headers
            and status >= 500
        ):
            # aiohttp failed to format its own response to Expect.
            refused = refuse_expectation(request)
            refused.force_close()
            return refused
        request_id = exchange.request_id if exchange else secrets.token_hex(8)
        error: MalformedError | RequestRefusedError
        if status < 500:
            error = MalformedError("The request is not valid HTTP/1.1.")
        else:
            error = RequestRefusedError("internal", "The request failed.")
            self._app[METRICS].count_unexpected()
        self._app[METRICS].count_request("none", error.code, 0.0)
        self._app[LOGGER].warning(
            "connection",
            request_id=request_id,
            code=error.code,
            error=type(exc).__name__,
            place=location(exc.__traceback__) if exc is not None else "",
        )
        response = problem_response(error, request_id)
        response.headers.update(COMMON_HEADERS)
        response.headers[REQUEST_ID_HEADER] = request_id
        response.force_close()
        return response
