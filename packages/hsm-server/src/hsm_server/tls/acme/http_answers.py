# SPDX-License-Identifier: MIT
"""
HTTP-01 challenge server on a socket of its own.

There is no other page and no redirect: a redirect would encourage clients to
send tokens without TLS.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator, Mapping
from typing import Final

from acme.challenges import HTTP01
from aiohttp import web

_PREFIX: Final = f"/{HTTP01.URI_ROOT_PATH}/"
_MOST_CONNECTIONS: Final = 64
_IDLE_SECONDS: Final = 5.0


class HTTPAnswers:
    """
    HTTP-01 challenge server.

    Args:
        bound: Listening socket; the caller closes it.

    Standard:
        RFC 8555, section 8.3.
    """

    def __init__(self, bound: socket.socket) -> None:
        self._bound = bound
        self._answers: dict[str, str] = {}

    @contextlib.contextmanager
    def giving(self, answers: Mapping[str, str]) -> Iterator[None]:
        """Answer tokens with key authorizations temporarily."""
        self._answers = dict(answers)
        try:
            yield
        finally:
            self._answers = {}

    async def run(self) -> None:
        """Serve until this is cancelled."""
        loop = asyncio.get_running_loop()
        server = web.Server(
            self._answer,
            request_factory=lambda message, payload, protocol, writer, task: _Request(
                message, payload, protocol, writer, task, loop
            ),
            access_log=None,
            keepalive_timeout=_IDLE_SECONDS,
            lingering_time=0,
            max_line_size=2048,
            max_field_size=4096,
        )

        def accept() -> asyncio.Protocol:
            if len(server.connections) < _MOST_CONNECTIONS:
                return server()
            return _Refusal()

        # The loop closes what it is given.
        own = self._bound.dup()
        own.setblocking(False)
        listening = await loop.create_server(accept, sock=own)
        try:
            # Its own `serve_forever` would wait at the end for who says nothing.
            await asyncio.Event().wait()
        finally:
            listening.close()
            await server.shutdown(0.1)

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        token = request.path.removeprefix(_PREFIX)
        found = self._answers.get(token) if request.path.startswith(_PREFIX) else None
        if found is None or request.method not in {"GET", "HEAD"}:
            answer = web.Response(status=404, text="Not found.\n")
        else:
            answer = web.Response(
                body=found.encode(), content_type="application/octet-stream"
            )
        answer.force_close()
        return answer


class _Request(web.BaseRequest):
    """Request whose responses, also to malformed requests, name no software."""

    async def _prepare_hook(self, response: web.StreamResponse) -> None:
        response.headers.pop("Server", None)


class _Refusal(asyncio.Protocol):
    """Connection above the limit."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Close it."""
        transport.close()
