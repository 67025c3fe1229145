# SPDX-License-Identifier: MIT
"""HSM on a server, for an event loop, and its transport over aiohttp."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from http import HTTPStatus
from io import BytesIO
from types import TracebackType
from typing import Any, Final, Self, TypeVar

try:
    import aiohttp
    from yarl import URL
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "hsm_client.aio requires aiohttp. Install the extra hsm-client[aio].",
        name=error.name,
    ) from None

from hsm_client.exchange import (
    Pause,
    UnsentError,
    View,
    authorization,
    exchange,
    server_closed,
)
from hsm_client.failures import Failures, client_closed, innermost, too_long
from hsm_client.messages import EVENTS, Answer, Request, error_of
from hsm_client.remote import RemoteBase
from hsm_client.steps import run_async_steps
from hsm_client.transport import (
    CONNECTIONS,
    LONGEST_SILENCE_SECONDS,
    checked_timeout,
    parse_endpoint,
    parse_retry_after,
)
from hsm_core.errors import (
    AuthenticationError,
    HSMError,
    TransportError,
    UnavailableError,
)
from hsm_core.model import AuditEntry
from hsm_core.operations.audit import ListAuditEvents
from hsm_core.operations.base import Operation
from hsm_core.rest import RESULT_HEADER, REVISION_HEADER, parse_revision

R = TypeVar("R")

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

    @contextlib.contextmanager
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


class AsyncRemoteHSM(RemoteBase[AsyncTransport, Awaitable[None]]):
    """
    HSM on a server, for an event loop; `hsm_client.RemoteHSM` is its blocking twin.

    Use it in one event loop, by any number of tasks. Close it, or use it in an ``async
    with`` block. A cancelled mutation may have been made: to retry it safely, pass an
    idempotency key.

    Arguments and errors are those of `hsm_client.RemoteHSM`; *token* is called in a
    thread, and *pause* is awaited.
    """

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections; the client can't be used after it."""
        await self._transport.close()

    async def execute(
        self,
        operation: Operation[R],
        /,
        *,
        idempotency_key: str | None = None,
        approval_id: str = "",
        expected_generation: int = 0,
    ) -> R:
        """Execute one operation on the server; see `hsm_client.RemoteHSM.execute`."""
        steps = exchange(
            operation,
            attempts=self._attempts,
            idempotency_key=idempotency_key,
            approval_id=approval_id,
            expected_generation=expected_generation,
        )
        return await run_async_steps(steps, self._take)

    async def _take(self, step: Request | Pause) -> Answer | None:
        if isinstance(step, Pause):
            await self._pause(step.seconds)
            return None
        try:
            headers = await self._credentials()
        except HSMError as error:
            raise UnsentError(error) from None
        headers |= self._seen.header
        return self._seen.note(await self._transport.send(step, headers))

    async def follow(
        self,
        operation: ListAuditEvents,
        /,
        *,
        on_interruption: Callable[[HSMError], None] | None = None,
    ) -> AsyncGenerator[AuditEntry, None]:
        """
        Stream audit records; see `hsm_client.RemoteHSM.follow`.

        Close it with ``aclose``, or use it in ``contextlib.aclosing``.
        """
        view = View(operation, attempts=self._attempts)
        while True:
            try:
                async with contextlib.aclosing(self._connect(view)) as pieces:
                    async for piece in pieces:
                        for entry in view.receive(piece):
                            yield entry
                raise server_closed()
            except (UnavailableError, AuthenticationError) as error:
                pause = view.interrupted(error)
                if on_interruption is not None:
                    on_interruption(error)
            await self._pause(pause.seconds)

    async def _connect(self, view: View) -> AsyncGenerator[bytes, None]:
        """Yield the pieces of one response."""
        answer = await self._transport.stream(view.connect(), await self._credentials())
        if isinstance(answer, Answer):
            raise error_of(answer)
        async with contextlib.aclosing(answer):
            async for piece in answer:
                yield piece

    def _open_transport(self, endpoint: str, **options: Any) -> AsyncTransport:
        return AsyncTransport(endpoint, **options)

    @staticmethod
    def _sleep(seconds: float, /) -> Awaitable[None]:
        return asyncio.sleep(seconds)

    async def _credentials(self) -> dict[str, str]:
        # The token may have to be fetched from its provider first.
        return authorization(await asyncio.to_thread(self._token)) | self._interface
