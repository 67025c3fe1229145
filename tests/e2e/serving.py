# SPDX-License-Identifier: MIT
"""The real application over TLS in this process, reached by the real client."""

from __future__ import annotations

import asyncio
import io
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from hsm_client import RemoteHSM
from hsm_core.model import Caller
from hsm_core.protocols import HSM, AsyncHSMGateway
from hsm_server.app import create_app
from hsm_server.config.settings import LogFormat, LogLevel, ServerSettings
from hsm_server.config.tls import PairFiles, TLSSettings
from hsm_server.http.listener import Listener
from hsm_server.identity.token_keys import TokenTrust
from hsm_server.observability.logs import make_logger
from hsm_server.observability.metrics import Metrics
from hsm_server.tls.adapter import AdapterContext
from hsm_server.tls.sources import first_state
from hsm_server.vault.gatekeeper import Gatekeeper
from hsm_server.vault.local_vault import LocalVault
from tests.contract.hsm_ways import Connect, running_loop
from tests.e2e.certificates import Pair, make_authority
from tests.e2e.tokens import mint

SECRET = b"tests only: 32 bytes or more of it"


async def _stop(listener: Listener) -> None:
    await listener.stop(1.0)
    # TLS connections say farewell, for which the loop must go round once more.
    await asyncio.sleep(0.1)


@contextmanager
def serving(
    gateway: AsyncHSMGateway,
    server: Pair,
    loop: asyncio.AbstractEventLoop,
) -> Iterator[int]:
    """Serve an HSM with a certificate on a running loop, and give the port."""
    logger = make_logger(io.StringIO(), LogLevel.INFO, LogFormat.JSON)
    settings, metrics = ServerSettings(), Metrics()
    gatekeeper = Gatekeeper(
        gateway,
        TokenTrust.of_secret(SECRET, settings.tokens),
        metrics.count_jwt_failure,
    )
    vault = LocalVault(gateway, gatekeeper)
    app = create_app(vault, settings, logger=logger, metrics=metrics)
    pair = PairFiles(cert=server.certificate, key=server.key)
    context = AdapterContext(first_state(TLSSettings(pairs=(pair,))))
    bound = socket.create_server(("127.0.0.1", 0))
    bound.setblocking(False)
    listener = Listener(app, [bound], context)
    asyncio.run_coroutine_threadsafe(listener.start(), loop).result()
    try:
        yield bound.getsockname()[1]
    finally:
        asyncio.run_coroutine_threadsafe(_stop(listener), loop).result()


@contextmanager
def serve_and_connect(gateway: AsyncHSMGateway, folder: Path) -> Iterator[Connect]:
    """Serve an HSM, and give a function that reaches it as a caller."""
    authority = make_authority(folder / "certificates")
    server = authority.issue("server", server=True)
    with (
        running_loop() as loop,
        serving(gateway, server, loop) as port,
        ExitStack() as clients,
    ):

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

        yield connect
