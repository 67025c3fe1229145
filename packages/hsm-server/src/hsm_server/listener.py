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
from hsm_server.app_keys import LOGGER, METRICS, SETTINGS
from hsm_server.logs import location
from hsm_server.middleware import COMMON_HEADERS, REQUEST_ID_HEADER
from hsm_server.problems import RequestRefusedError, problem_response
from hsm_server.settings import HTTPLimits

__all__ = ["make_runner", "start_listening"]

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
        request_id = secrets.token_hex(8)
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


def make_runner(app: web.Application) -> web.AppRunner:
    """Return a runner that drains for as long as the application's settings say."""
    settings = app[SETTINGS]
    return web.AppRunner(
        app,
        shutdown_timeout=settings.drain_timeout_seconds,
        **_connection_options(settings.limits),
    )


async def start_listening(
    runner: web.AppRunner,
    listener: socket.socket,
    context: ssl.SSLContext | None,
) -> asyncio.Server:
    """
    Accept connections for a runner that is set up.

    Args:
        runner: From `make_runner`; its ``cleanup`` drains what was accepted here.

        listener: Bound socket.

        context: TLS, or None in tests.

    Returns:
        The accepting server, to be closed before the runner is cleaned up.
    """
    manager, loop = runner.server, asyncio.get_running_loop()
    if manager is None:
        raise RuntimeError("The runner is not set up.")
    options = _connection_options(runner.app[SETTINGS].limits)

    def connection() -> _Connection:
        return _Connection(manager, runner.app, loop=loop, **options)

    return await loop.create_server(connection, sock=listener, ssl=context, backlog=128)


def _connection_options(limits: HTTPLimits) -> dict[str, Any]:
    return {
        "access_log": None,
        "auto_decompress": False,
        "keepalive_timeout": limits.keepalive_seconds,
        "lingering_time": _LINGER_SECONDS,
        "max_field_size": limits.header_bytes,
        "max_line_size": limits.line_bytes,
    }
