# SPDX-License-Identifier: MIT
"""
Front end: TLS and HTTP, with no key except that of its certificate.

The supervisor forks it; see `hsm_server.processes.fork`.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from typing import Final

import msgspec
from aiohttp import web

import hsm_server.tls.openssl  # noqa: F401 (before anything else of cryptography)
from hsm_core.errors import HSMError
from hsm_server.app import create_app, create_metrics_app
from hsm_server.config.settings import ServerSettings
from hsm_server.http.listener import Listener
from hsm_server.http.state import HEALTH
from hsm_server.ipc.control import (
    LONGEST_TEXT,
    Alarm,
    Beat,
    FromSupervisor,
    Link,
    Ready,
    Serve,
    Stop,
    UseTLS,
    UsingTLS,
)
from hsm_server.ipc.remote_vault import RemoteVault
from hsm_server.observability.tracing import open_tracing
from hsm_server.processes.child import (
    Child,
    ChildProgram,
    begin_child,
    end_without_memory,
)
from hsm_server.system.hardening import drop_capabilities, give_back_memory
from hsm_server.system.sockets import collect_rarely, pass_over_what_stays, run
from hsm_server.system.standard_streams import sentence
from hsm_server.tls.adapter import AdapterContext
from hsm_server.tls.state import ends_by_kind, unseal_state

_TIDY_SECONDS: Final = 20.0


def main() -> None:
    """Serve connections until the supervisor says that it is enough."""
    child = begin_child()
    settings = _own_share(child.plan.settings)
    with contextlib.suppress(OSError):
        drop_capabilities()
    run(_FrontEnd(child, settings).run(), settings.event_loop)


def _own_share(settings: ServerSettings) -> ServerSettings:
    """Return the settings of one front end among several."""
    workers, limits = settings.workers, settings.limits
    limits = msgspec.structs.replace(
        limits,
        max_connections=max(1, limits.max_connections // workers),
        max_connections_per_address=max(
            1, limits.max_connections_per_address // workers
        ),
    )
    rates = settings.rates
    rates = msgspec.structs.replace(
        rates,
        address_per_second=rates.address_per_second / workers,
        address_burst=max(1, rates.address_burst // workers),
    )
    return msgspec.structs.replace(settings, limits=limits, rates=rates)


async def _tidy() -> None:
    """Return freed memory to the system periodically, until cancelled."""
    while True:
        await asyncio.sleep(_TIDY_SECONDS)
        give_back_memory()


class _FrontEnd(ChildProgram):
    """Front end."""

    def __init__(self, child: Child, settings: ServerSettings) -> None:
        super().__init__(child)
        self._settings = settings
        self._context: AdapterContext | None = None
        self._listeners: list[Listener] = []
        self._logger = child.logger
        self._stop_seconds = settings.drain_timeout_seconds

    async def run(self) -> None:
        """Serve from the first order to the last."""
        self._vault = RemoteVault(lambda event: self._logger.warning(event))
        tracing = open_tracing(self._settings.tracing)
        app = create_app(
            self._vault,
            self._settings,
            logger=self._logger,
            metrics=self._child.metrics,
            tracing=tracing,
        )
        app.middlewares.append(_need_memory)
        self._app = app
        self._connect()
        pass_over_what_stays()
        collect_rarely()
        self._control.send(Ready())
        tidying = asyncio.ensure_future(_tidy())
        await self._stopping.wait()
        tidying.cancel()
        stopping = [each.stop(self._stop_seconds) for each in self._listeners]
        if not all(await asyncio.gather(*stopping)):
            self._logger.warning("requests were cut off")
        self._vault.close()
        tracing.close()
        self._control.close()

    def _heed(self, message: FromSupervisor, descriptors: list[int]) -> bool:
        match message:
            case Link():
                self._vault.attach(socket.socket(fileno=descriptors.pop()))
            case Serve():
                self._serving = asyncio.ensure_future(self._serve())
            case UseTLS():
                self._use_tls(message.serial, descriptors[0])
            case Alarm():
                health = self._app[HEALTH]
                health.note_alarm(message.source, is_active=message.is_active)
            case Beat():
                self._control.send(Beat(self._vault.is_linked))
            case Stop():
                self._stop_seconds = message.seconds
                return False
            case _:
                return False
        return True

    async def _serve(self) -> None:
        if not self._listeners:
            raise AssertionError("A serving front end must have a TLS state.")
        for listener in self._listeners:
            await listener.start()
        self._control.send(Serve())

    def _use_tls(self, serial: int, descriptor: int) -> None:
        """Use another state for new connections; exit without a first one."""
        try:
            state = unseal_state(descriptor)
            if self._context is None:
                tls = self._settings.tls
                allows = tls is not None and tls.allow_tls_1_2
                self._listen(AdapterContext(state, allow_tls_1_2=allows))
            else:
                self._context.use(state)
        except HSMError as error:
            if self._context is None:
                self._child.fail(error)
            self._control.send(UsingTLS(serial, sentence(error)[:LONGEST_TEXT]))
        else:
            self._child.metrics.show_certificates(ends_by_kind(state))
            self._control.send(UsingTLS(serial))

    def _listen(self, context: AdapterContext) -> None:
        """Create the listener; it accepts nothing yet."""
        sockets = [socket.socket(fileno=fd) for fd in self._child.descriptors]
        self._context = context
        if self._child.plan.has_metrics_socket:
            shown, bound = create_metrics_app(self._app), sockets.pop()
            self._logger.info("metrics", port=bound.getsockname()[1])
            self._listeners.append(Listener(shown, [bound], None))
        self._listeners.append(Listener(self._app, sockets, context))


@web.middleware
async def _need_memory(
    request: web.Request,
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> web.StreamResponse:
    """Answer nothing where memory is out: what became of the request is not known."""
    try:
        return await handler(request)
    except Exception as error:
        end_without_memory(error)
        raise


if __name__ == "__main__":
    main()
