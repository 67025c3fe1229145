# SPDX-License-Identifier: MIT
"""Accepts connections, and answers in our form even what is not HTTP."""

from __future__ import annotations

import asyncio
import ipaddress
import resource
import secrets
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from aiohttp import web

from hsm_core.errors import MalformedError
from hsm_server.app_keys import IN_FLIGHT, LOGGER, METRICS, SETTINGS, exchange_of
from hsm_server.logs import location
from hsm_server.middleware import COMMON_HEADERS, REQUEST_ID_HEADER
from hsm_server.problems import RequestRefusedError, problem_response
from hsm_server.settings import HTTPLimits

__all__ = ["Listener"]

_HANDSHAKE_SECONDS: Final = 10.0
_CANCEL_SECONDS: Final = 1.0
"""How long what is cut off at the end of the drain may still react."""

_LINGER_SECONDS: Final = 5.0
"""How long the rest of a refused body is still read, so that the answer arrives."""

_RESERVED_DESCRIPTORS: Final = 64
"""Descriptors that connections leave to the stores, the trail and the log."""

_RETRY_SECONDS: Final = 0.1
"""How long nothing is accepted after accepting has failed."""

_QUIET_SECONDS: Final = 60.0
"""How often, at most, the log says that connections are turned away."""


class _Connection(web.RequestHandler):
    """
    One connection; differs from its base in what it says of errors.

    It also ends where the head of a request does not arrive in time: the first from the
    beginning of the connection, each later one from its first byte.
    """

    __slots__ = ("_app", "_head_timer", "_on_lost")

    def __init__(
        self,
        manager: web.Server,
        app: web.Application,
        on_lost: Callable[[web.RequestHandler], None],
        **options: Any,
    ) -> None:
        super().__init__(manager, **options)
        self._app = app
        self._on_lost = on_lost
        self._head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to wait for the first head."""
        super().connection_made(transport)
        self._begin_head()

    def data_received(self, data: bytes) -> None:
        """Read on; a head that is begun must be finished in time."""
        heads = self._request_count
        super().data_received(data)
        if self._request_count != heads:
            self._end_head()
        elif data and self._waiter is not None and not self._waiter.done():
            self._begin_head()

    def _begin_head(self) -> None:
        if self._head_timer is None:
            seconds = self._app[SETTINGS].limits.head_timeout_seconds
            self._head_timer = self._loop.call_later(seconds, self.force_close)

    def _end_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    async def finish_response(
        self,
        request: web.BaseRequest,
        resp: web.StreamResponse,
        start_time: float | None,
    ) -> tuple[web.StreamResponse, bool]:
        """Send an answer; then nothing is owed any more."""
        try:
            return await super().finish_response(request, resp, start_time)
        finally:
            self._app[IN_FLIGHT].end(self)

    def forget(self) -> None:
        """Be counted no more."""
        self._on_lost(self)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Nobody waits for an answer any more."""
        self._end_head()
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
        """Answer what could not be read as HTTP, or what failed outside all else."""
        if request.writer.output_size > 0:
            raise ConnectionError("An answer was already begun.")
        exchange = exchange_of(request) if isinstance(request, web.Request) else None
        request_id = exchange.request_id if exchange else secrets.token_hex(8)
        error: MalformedError | RequestRefusedError
        if status < 500:
            error = MalformedError("This is not an HTTP request that can be read.")
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


class Listener:
    """
    Serves an application on a socket, from start to drain.

    aiohttp's own runner forgets what a client is still sending when it is shut down, so
    requests in flight are waited for before that.

    Args:
        app: From `create_app`.

        bound: Listening sockets.

        context: TLS, or None in tests.

    Attributes:
        context: TLS of new connections; may be replaced at any time.
    """

    def __init__(
        self,
        app: web.Application,
        bound: Sequence[socket.socket],
        context: ssl.SSLContext | None,
    ) -> None:
        self.context = context
        self._app = app
        self._bound = bound
        self._options = _connection_options(app[SETTINGS].limits)
        # What nobody waits for any more is not begun.
        self._runner = web.AppRunner(
            app,
            handler_cancellation=True,
            shutdown_timeout=_CANCEL_SECONDS,
            **self._options,
        )
        self._maximum = _most_connections(app[SETTINGS].limits)
        self._maximum_per_address = app[SETTINGS].limits.max_connections_per_address
        self._connections: set[web.RequestHandler] = set()
        self._by_address: Counter[str] = Counter()
        self._accepting: list[asyncio.Task[None]] = []
        self._handshakes: set[asyncio.Task[None]] = set()
        self._quiet_until = 0.0

    async def start(self) -> None:
        """Accept connections."""
        await self._runner.setup()
        for bound in self._bound:
            bound.setblocking(False)
            self._accepting.append(asyncio.create_task(self._accept(bound)))

    async def stop(self, seconds: float) -> bool:
        """
        Accept no more, answer what was begun, close; return whether all was.

        Args:
            seconds: How long requests in flight may take.
        """
        await self._stop_accepting()
        if self._runner.server is None:
            return True
        in_flight = self._app[IN_FLIGHT]
        in_flight.begin_drain()
        # What has arrived in full gets its turn before its connection counts as idle.
        await asyncio.sleep(0)
        for connection in self._manager.connections:
            if connection not in in_flight:
                connection.close()
        answered = await in_flight.drain(seconds)
        await self._runner.cleanup()
        return answered

    @property
    def _manager(self) -> web.Server:
        if self._runner.server is None:
            raise RuntimeError("The listener was not started.")
        return self._runner.server

    async def _accept(self, bound: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, _ = await loop.sock_accept(bound)
            except OSError as error:
                self._warn("accepting fails", error=type(error).__name__)
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            if len(self._connections) >= self._maximum:
                accepted.close()
                self._warn("too many connections", maximum=self._maximum)
                continue
            address = _address_of(accepted)
            if self._by_address[address] >= self._maximum_per_address:
                accepted.close()
                self._warn("too many connections from one address")
                continue
            self._by_address[address] += 1
            connection = _Connection(
                self._manager,
                self._app,
                partial(self._forget, address),
                loop=loop,
                **self._options,
            )
            self._connections.add(connection)
            task = asyncio.create_task(self._open(accepted, connection))
            self._handshakes.add(task)
            task.add_done_callback(self._handshakes.discard)

    async def _open(self, accepted: socket.socket, connection: _Connection) -> None:
        """Hand a socket to its connection, after the handshake."""
        context = self.context
        is_tls = context is not None
        try:
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: connection,
                accepted,
                ssl=context,
                ssl_handshake_timeout=_HANDSHAKE_SECONDS if is_tls else None,
                ssl_shutdown_timeout=_CANCEL_SECONDS if is_tls else None,
            )
        except OSError:
            # A handshake that fails is the client's affair.
            connection.forget()
        except BaseException:
            connection.forget()
            raise

    def _forget(self, address: str, connection: web.RequestHandler) -> None:
        """Count a connection no more; that it is gone may be told twice."""
        if connection not in self._connections:
            return
        self._connections.discard(connection)
        self._by_address[address] -= 1
        if not self._by_address[address]:
            del self._by_address[address]

    async def _stop_accepting(self) -> None:
        tasks = [*self._handshakes, *self._accepting]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for bound in self._bound:
            bound.close()

    def _warn(self, event: str, **fields: Any) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._quiet_until:
            self._quiet_until = now + _QUIET_SECONDS
            self._app[LOGGER].warning(event, **fields)


def _address_of(accepted: socket.socket) -> str:
    """
    Return what is counted as one peer: an IPv4 address, or half of an IPv6 one.

    A network of IPv6 has 2^64 addresses for a single machine to use. Those of a Unix
    socket are all the same.
    """
    try:
        peer = accepted.getpeername()
        address = ipaddress.ip_address(peer[0].partition("%")[0])
    except (OSError, ValueError, TypeError, IndexError):
        return ""
    if isinstance(address, ipaddress.IPv4Address):
        return str(address)
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    return str(ipaddress.ip_network((address, 64), strict=False))


def _most_connections(limits: HTTPLimits) -> int:
    """Return how many connections there may be, with descriptors left for the rest."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return limits.max_connections
    return max(1, min(limits.max_connections, soft - _RESERVED_DESCRIPTORS))


def _connection_options(limits: HTTPLimits) -> dict[str, Any]:
    return {
        "access_log": None,
        "auto_decompress": False,
        "keepalive_timeout": limits.keepalive_seconds,
        "lingering_time": _LINGER_SECONDS,
        "max_field_size": limits.header_bytes,
        "max_line_size": limits.line_bytes,
    }
