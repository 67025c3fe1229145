# SPDX-License-Identifier: MIT
"""The real application over TLS in this process, reached by the real client."""

from __future__ import annotations

import asyncio
import io
import ssl
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from aiohttp import web

from hsm_cli.client import RemoteHSM
from hsm_core.model import Caller
from hsm_core.protocols import HSM, AsyncHSMGateway
from hsm_server.app import create_app, runner_options
from hsm_server.logs import make_logger
from hsm_server.settings import LogFormat, LogLevel, ServerSettings, TLSFiles
from hsm_server.tls import server_context
from tests.contract.hsm_ways import Connect, running_loop
from tests.e2e.certificates import make_authority
from tests.e2e.tokens import mint

__all__ = ["serve_and_connect"]

SECRET = b"tests only: 32 bytes or more of it"


async def _start(app: web.Application, context: ssl.SSLContext) -> web.AppRunner:
    runner = web.AppRunner(app, **runner_options(ServerSettings()))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    return runner


async def _stop(runner: web.AppRunner) -> None:
    await runner.cleanup()
    # TLS connections say farewell, for which the loop must go round once more.
    await asyncio.sleep(0.1)


@contextmanager
def serve_and_connect(gateway: AsyncHSMGateway, folder: Path) -> Iterator[Connect]:
    """Serve an HSM, and give a function that reaches it as a caller."""
    authority = make_authority(folder / "certificates")
    server = authority.issue("server", server=True)
    logger = make_logger(io.StringIO(), LogLevel.INFO, LogFormat.JSON)
    app = create_app(gateway, ServerSettings(), jwt_secret=SECRET, logger=logger)
    context = server_context(TLSFiles(cert=server.certificate, key=server.key))
    with running_loop() as loop, ExitStack() as clients:
        starting = asyncio.run_coroutine_threadsafe(_start(app, context), loop)
        runner = starting.result()
        _, port = runner.addresses[0]

        def connect(caller: Caller) -> HSM:
            token = mint(SECRET, caller.principal, [r.value for r in caller.roles])
            return clients.enter_context(
                RemoteHSM(
                    f"https://127.0.0.1:{port}",
                    token=lambda: token,
                    ca_bundle=authority.bundle,
                    timeout_seconds=30,
                )
            )

        try:
            yield connect
        finally:
            clients.close()
            asyncio.run_coroutine_threadsafe(_stop(runner), loop).result()
