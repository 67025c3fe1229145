# SPDX-License-Identifier: MIT
"""Accepts connections, and answers in our form even what is not HTTP."""

from __future__ import annotations

import asyncio
import secrets
import socket
import ssl
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


class _Connection(web.RequestHandler):
    """One connection; differs from its base in what it says of errors."""

    __slots__ = ("_app",)

    def __init__(
        self, manager: web.Server, app: web.Application, **options: Any
    ) -> None:
        super().__init__(manager, **options)
        self._app = app

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

    def connection_lost(self, exc: BaseException | None) -> None:
        """Nobody waits for an answer any more."""
        self._app[IN_FLIGHT].end(self)
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
        app: From `create_app`; its settings say how long to drain.

        bound: Bound socket.

        context: TLS, or None in tests.
    """

    def __init__(
        self,
        app: web.Application,
        bound: socket.socket,
        context: ssl.SSLContext | None,
    ) -> None:
        self._app = app
        self._bound = bound
        self._context = context
        self._options = _connection_options(app[SETTINGS].limits)
        self._runner = web.AppRunner(
            app, shutdown_timeout=_CANCEL_SECONDS, **self._options
        )
        self._accepting: asyncio.Server | None = None

    async def start(self) -> None:
        """Accept connections."""
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        is_tls = self._context is not None
        self._accepting = await loop.create_server(
            self._connection,
            sock=self._bound,
            ssl=self._context,
            backlog=128,
            ssl_handshake_timeout=_HANDSHAKE_SECONDS if is_tls else None,
            ssl_shutdown_timeout=_CANCEL_SECONDS if is_tls else None,
        )

    async def stop(self) -> bool:
        """Accept no more, answer what was begun, close; return whether all was."""
        if self._accepting is not None:
            self._accepting.close()
        in_flight = self._app[IN_FLIGHT]
        in_flight.is_draining = True
        # What has arrived in full gets its turn before its connection counts as idle.
        await asyncio.sleep(0)
        for connection in self._manager.connections:
            if connection not in in_flight:
                connection.close()
        answered = await in_flight.drain(self._app[SETTINGS].drain_timeout_seconds)
        await self._runner.cleanup()
        return answered

    @property
    def _manager(self) -> web.Server:
        if self._runner.server is None:
            raise RuntimeError("The listener was not started.")
        return self._runner.server

    def _connection(self) -> _Connection:
        loop = asyncio.get_running_loop()
        return _Connection(self._manager, self._app, loop=loop, **self._options)


def _connection_options(limits: HTTPLimits) -> dict[str, Any]:
    return {
        "access_log": None,
        "auto_decompress": False,
        "keepalive_timeout": limits.keepalive_seconds,
        "lingering_time": _LINGER_SECONDS,
        "max_field_size": limits.header_bytes,
        "max_line_size": limits.line_bytes,
    }
