# SPDX-License-Identifier: MIT
"""HTTPS transport of an event loop, over aiohttp: one attempt of a request."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from io import BytesIO
from typing import Final

try:
    import aiohttp
    from yarl import URL
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "hsm_client.aio requires aiohttp. Install the extra hsm-client[aio].",
        name=error.name,
    ) from None

from hsm_client.failures import Failures, client_closed, innermost, too_long
from hsm_client.messages import EVENTS, Answer, Request
from hsm_client.transport import (
    CONNECTIONS,
    LONGEST_SILENCE_SECONDS,
    checked_timeout,
    parse_endpoint,
    parse_retry_after,
)
from hsm_core.errors import TransportError
from hsm_core.rest import RESULT_HEADER, REVISION_HEADER, parse_revision

_CHUNK_BYTES: Final = 64 * 1024


class AsyncTransport:
    """
    Connection pool to one server, for one event loop.

    It does not follow redirects, keep cookies, use proxies of the environment, or
    decompress responses.

    Arguments and errors are those of `hsm_client.transport.Transport`.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        context: ssl.SSLContext,
        timeout_seconds: float,
        max_answer_bytes: int,
    ) -> None:
        host, port, prefix = parse_endpoint(endpoint)
        self._timeout_seconds = checked_timeout(timeout_seconds)
        authority = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._base = f"https://{authority}{prefix}"
        self._failed = Failures(f"{host}:{port}", timeout_seconds)
        self._context = context
        self._max_answer_bytes = max_answer_bytes
        self._opened: aiohttp.ClientSession | None = None
        self._is_closed = False

    async def send(self, request: Request, headers: dict[str, str]) -> Answer:
        """Send one request and read its response; see `Transport.send`."""
        with self._failures():
            return await self._read(
                await self._open(request, headers, self._timeout_seconds)
            )

    async def stream(
        self, request: Request, headers: dict[str, str]
    ) -> Answer | AsyncGenerator[bytes, None]:
        """Send one request; return its response in pieces. See `Transport.stream`."""
        with self._failures():
            longest = max(self._timeout_seconds, LONGEST_SILENCE_SECONDS)
            response = await self._open(request, headers, longest)
            if response.status != HTTPStatus.OK or response.content_type != EVENTS:
                return await self._read(response)
        return self._pieces(response)

    async def _pieces(
        self, response: aiohttp.ClientResponse
    ) -> AsyncGenerator[bytes, None]:
        try:
            with self._failures():
                while piece := await response.content.readany():
                    yield piece
        finally:
            response.close()

    async def _open(
        self, request: Request, headers: dict[str, str], read_seconds: float
    ) -> aiohttp.ClientResponse:
        return await self._session().request(
            request.method,
            URL(self._base + request.target, encoded=True),
            data=request.body,
            headers={**request.headers, **headers, "Accept-Encoding": "identity"},
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(
                sock_connect=self._timeout_seconds, sock_read=read_seconds
            ),
        )

    def _session(self) -> aiohttp.ClientSession:
        if self._is_closed:
            raise client_closed()
        if self._opened is None:
            self._opened = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=self._context, limit=CONNECTIONS),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
            )
        return self._opened

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """Convert errors of aiohttp into `TransportError`."""
        try:
            yield
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._failure(error) from None

    async def close(self) -> None:
        """Close all connections."""
        self._is_closed = True
        if self._opened is not None:
            await self._opened.close()

    async def _read(self, response: aiohttp.ClientResponse) -> Answer:
        body = BytesIO()
        try:
            async with asyncio.timeout(self._timeout_seconds):
                async for chunk in response.content.iter_chunked(_CHUNK_BYTES):
                    body.write(chunk)
                    if body.tell() > self._max_answer_bytes:
                        raise too_long(self._max_answer_bytes)
        except TimeoutError as error:
            if isinstance(error, aiohttp.ClientError):
                raise
            raise self._failed.incomplete() from None
        finally:
            # A response that was read to its end has left the connection already.
            response.close()
        return Answer(
            status=response.status,
            content_type=response.headers.get("Content-Type", ""),
            body=body.getvalue(),
            result_fields=response.headers.get(RESULT_HEADER, ""),
            retry_after_seconds=parse_retry_after(response.headers.get("Retry-After")),
            revision=parse_revision(response.headers.get(REVISION_HEADER, "")) or 0,
        )

    def _failure(self, error: Exception) -> TransportError:
        match error:
            case aiohttp.ConnectionTimeoutError():
                return self._failed.slow_to_accept()
            case aiohttp.ServerTimeoutError():
                return self._failed.silent()
            case aiohttp.ServerDisconnectedError():
                return self._failed.closed()
            case aiohttp.ClientSSLError():
                return self._failed.tls(_cause(error))
            case aiohttp.ClientConnectorError():
                return self._failed.refused(_cause(error))
            case _ if isinstance(innermost(error), ssl.SSLError):
                return self._failed.tls(error)
            case _:
                return self._failed.lost(error)


def _cause(error: aiohttp.ClientError) -> BaseException:
    """Return the socket error that aiohttp keeps in an attribute of its own."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        return error.certificate_error
    return error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
