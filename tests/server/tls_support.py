# SPDX-License-Identifier: MIT
"""A listener with TLS on either event loop, and the foreign clients that call it."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any, TypeVar

import uvloop
from aiohttp import web

from hsm_core.factory import open_async
from hsm_core.testing import memory_hsm
from hsm_server.config.settings import HTTPLimits, LogFormat, LogLevel, ServerSettings
from hsm_server.http.listener import Listener
from hsm_server.http.state import METRICS
from hsm_server.identity.clock import FlooredClock
from hsm_server.observability.logs import make_logger
from hsm_server.tls.adapter import AdapterContext
from hsm_server.tls.handshakes import channel_of
from hsm_server.tls.state import ClientRules, ServerPair, TLSState
from tests.pki import Issued, Issuer
from tests.server.support import local_app
from tests.support import require_program

T = TypeVar("T")

REQUEST = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def state_of(
    *pairs: ServerPair, client: ClientRules | None = None, **fields: Any
) -> TLSState:
    """Return a state."""
    return TLSState(generation=0, pairs=pairs, client=client, **fields)


@dataclass
class Server:
    """A listener that runs in a thread of its own."""

    loop: asyncio.AbstractEventLoop
    context: AdapterContext
    listener: Listener
    app: web.Application
    port: int
    release: asyncio.Event
    held: threading.Event
    stopped: bool = field(default=False)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run on the loop, and return what came of it."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(60)

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """Call on the loop's thread, and return what came of it."""

        async def run() -> T:
            return function(*arguments)

        return self.run(run())

    def use(self, state: TLSState) -> None:
        """Go by another state."""
        self.call(self.context.use, state)

    def stop(self, seconds: float = 5.0) -> bool:
        """Drain; return whether all was answered."""
        self.stopped = True
        return self.run(self.listener.stop(seconds))

    def handshakes(self, outcome: str, group: str = "none") -> int:
        """Return how many handshakes were counted."""
        labels = {"outcome": outcome, "group": group}
        value = self.app[METRICS].registry.get_sample_value(
            "ferrohsm_tls_handshakes_total", labels
        )
        return int(value or 0)

    def has_counted(self, count: int, outcome: str, group: str = "none") -> bool:
        """Return whether so many are counted, at once or a moment later."""
        end = time.monotonic() + 60
        while self.handshakes(outcome, group) != count:
            if time.monotonic() > end:
                return False
            time.sleep(0.01)
        return True


@contextlib.contextmanager
def serving(
    state: TLSState, kind: str, *, allow_tls_1_2: bool = False, **limits: Any
) -> Iterator[Server]:
    """
    Serve a fresh memory HSM over TLS on loopback.

    Besides the service's own paths there are ``/echo``, ``/hold``, which answers when
    it is released, and ``/peer``, which tells who asks.
    """
    loop = uvloop.new_event_loop() if kind == "uvloop" else asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    with memory_hsm() as hsm, contextlib.ExitStack() as undo:
        undo.callback(_end, loop, thread)
        settings = ServerSettings(limits=HTTPLimits(**limits))
        logger = make_logger(StringIO(), LogLevel.DEBUG, LogFormat.JSON)
        app = local_app(open_async(hsm), settings, logger, FlooredClock())
        context = AdapterContext(state, allow_tls_1_2=allow_tls_1_2)
        bound = undo.enter_context(socket.create_server(("127.0.0.1", 0)))
        release, held = asyncio.Event(), threading.Event()
        _add_routes(app, release, held)

        async def start() -> Listener:
            listener = Listener(app, [bound], context)
            await listener.start()
            return listener

        listener = asyncio.run_coroutine_threadsafe(start(), loop).result(30)
        port = bound.getsockname()[1]
        server = Server(loop, context, listener, app, port, release, held)
        try:
            yield server
        finally:
            if not server.stopped:
                server.stop(0.5)


def _end(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    async def farewell() -> None:
        await loop.shutdown_default_executor()
        await asyncio.sleep(0.05)

    asyncio.run_coroutine_threadsafe(farewell(), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


def _add_routes(
    app: web.Application, release: asyncio.Event, held: threading.Event
) -> None:
    async def echo(request: web.Request) -> web.StreamResponse:
        digest, length = hashlib.sha256(), 0
        async for chunk in request.content.iter_any():
            digest.update(chunk)
            length += len(chunk)
        answer = int(request.query.get("answer", "0"))
        headers = {"X-Digest": digest.hexdigest(), "X-Length": str(length)}
        return web.Response(body=b"\xa5" * answer, headers=headers)

    async def hold(request: web.Request) -> web.StreamResponse:
        held.set()
        await release.wait()
        return web.Response(text="released")

    async def peer(request: web.Request) -> web.StreamResponse:
        channel = channel_of(request.transport)
        found = channel.peer_certificate() if channel else None
        return web.json_response(
            {
                "subject": found.subject.rfc4514_string() if found else "",
                "chain": len(channel.verified_chain()) if channel else 0,
                "group": channel.group() if channel else "",
            }
        )

    app.router.add_post("/echo", echo)
    app.router.add_get("/hold", hold)
    app.router.add_get("/peer", peer)


@dataclass(frozen=True)
class Sent:
    """What came of a foreign client."""

    status: int
    output: str
    errors: str

    @property
    def text(self) -> str:
        """All that it wrote."""
        return self.output + self.errors


def s_client(
    server: Server, *options: str, request: bytes = REQUEST, seconds: float = 20
) -> Sent:
    """Let OpenSSL's client ask for something; the server closes."""
    program = require_program("openssl")
    return _run(
        [
            *(program, "s_client", "-connect", f"127.0.0.1:{server.port}"),
            *("-ign_eof", *options),
        ],
        request,
        seconds,
    )


def curl(server: Server, *options: str, path: str = "/healthz") -> Sent:
    """Let curl ask for a path."""
    program = require_program("curl")
    url = f"https://localhost:{server.port}{path}"
    return _run([program, "-sS", "--max-time", "20", *options, url], b"", 25)


def _run(command: Sequence[str], given: bytes, seconds: float) -> Sent:
    environment = {"PATH": os.environ["PATH"], "LC_ALL": "C"}
    done = subprocess.run(
        command,
        input=given,
        capture_output=True,
        timeout=seconds,
        env=environment,
        check=False,
    )
    return Sent(
        done.returncode,
        done.stdout.decode(errors="replace"),
        done.stderr.decode(errors="replace"),
    )


def client_context(
    root: Issuer, shown: Issued | None = None, folder: Path | None = None
) -> ssl.SSLContext:
    """Return a context of Python's own client."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(cadata=root.der)
    if shown is not None and folder is not None:
        context.load_cert_chain(*shown.write(folder, "shown"))
    return context


@contextlib.contextmanager
def connected(server: Server, context: ssl.SSLContext) -> Iterator[ssl.SSLSocket]:
    """Connect Python's own client, which tells an end without close_notify."""
    address = ("127.0.0.1", server.port)
    with (
        socket.create_connection(address, timeout=60) as bare,
        context.wrap_socket(
            bare, server_hostname="localhost", suppress_ragged_eofs=False
        ) as tls,
    ):
        yield tls


def answer(tls: ssl.SSLSocket) -> bytes:
    """Read one answer, whole."""
    got = b""
    while b"\r\n\r\n" not in got:
        piece = tls.recv(65536)
        assert piece, got
        got += piece
    head, _, body = got.partition(b"\r\n\r\n")
    (length,) = [
        int(line.partition(b":")[2])
        for line in head.splitlines()
        if line.lower().startswith(b"content-length")
    ]
    while len(body) < length:
        body += tls.recv(65536)
    return head + b"\r\n\r\n" + body
