# SPDX-License-Identifier: MIT
"""Serves the keys of an issuer from a thread, for servers that are processes."""

import asyncio
import contextlib
import ssl
import threading
from collections.abc import Iterator
from typing import Protocol, TypeVar

from aiohttp import web


class _Answering(Protocol):
    port: int

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Answer."""
        ...


T = TypeVar("T", bound=_Answering)


@contextlib.contextmanager
def issuing(issuer: T, tls: ssl.SSLContext) -> Iterator[T]:
    """Let an issuer answer until the end."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    app = web.Application()
    app.router.add_get("/keys", issuer.answer)
    runner = web.AppRunner(app)

    async def begin() -> None:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        issuer.port = runner.addresses[0][1]

    try:
        asyncio.run_coroutine_threadsafe(begin(), loop).result(30)
        yield issuer
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
