# SPDX-License-Identifier: MIT
"""HSM on a server, for an event loop."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from hsm_client.aio_transport import AsyncTransport
from hsm_client.defaults import DEFAULT_TIMEOUT_SECONDS
from hsm_client.exchange import (
    MAX_ANSWER_BYTES,
    Pause,
    SeenRevision,
    UnsentError,
    View,
    authorization,
    exchange,
    interface_header,
    server_closed,
)
from hsm_client.messages import Answer, Request, error_of
from hsm_client.profile_secrets import key_password_of
from hsm_client.settings import ClientSettings
from hsm_client.steps import run_async_steps
from hsm_client.tokens import open_token
from hsm_client.transport import open_tls_context
from hsm_core.errors import AuthenticationError, HSMError, UnavailableError
from hsm_core.model import AuditEntry
from hsm_core.operations import ListAuditEvents, Operation

R = TypeVar("R")


class AsyncRemoteHSM:
    """
    HSM on a server, for an event loop; `hsm_client.RemoteHSM` is its blocking twin.

    Use it in one event loop, by any number of tasks. Close it, or use it in an ``async
    with`` block. A cancelled mutation may have been made: to retry it safely, pass an
    idempotency key.

    Arguments and errors are those of `hsm_client.RemoteHSM`; *token* is called in a
    thread, and *pause* is awaited.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        token: Callable[[], str],
        ca_bundle: Path | None = None,
        client_cert: Path | None = None,
        client_key: Path | None = None,
        client_key_password: str = "",
        insecure: bool = False,
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        attempts: int = 3,
        interface: str = "",
        max_answer_bytes: int = MAX_ANSWER_BYTES,
        pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        context = open_tls_context(
            ca_bundle=ca_bundle,
            client_cert=client_cert,
            client_key=client_key,
            client_key_password=client_key_password,
            insecure=insecure,
        )
        self._transport = AsyncTransport(
            endpoint,
            context=context,
            timeout_seconds=timeout_seconds,
            max_answer_bytes=max_answer_bytes,
        )
        self._token = token
        self._attempts = attempts
        self._interface = interface_header(interface)
        self._pause = pause
        self._seen = SeenRevision()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

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

    async def _credentials(self) -> dict[str, str]:
        # The token may have to be fetched from its provider first.
        return authorization(await asyncio.to_thread(self._token)) | self._interface


def open_async_remote(
    settings: ClientSettings, *, token: Callable[[], str] | None = None
) -> AsyncRemoteHSM:
    """Return the remote HSM of the settings; see `hsm_client.remote.open_remote`."""
    return AsyncRemoteHSM(
        settings.endpoint,
        token=token
        or open_token(settings.token, has_certificate=settings.client_cert is not None),
        ca_bundle=settings.ca_bundle,
        client_cert=settings.client_cert,
        client_key=settings.client_key,
        client_key_password=key_password_of(settings),
        insecure=settings.insecure,
        timeout_seconds=settings.timeout_seconds,
    )
