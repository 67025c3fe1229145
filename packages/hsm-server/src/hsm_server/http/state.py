# SPDX-License-Identifier: MIT
"""Application state: typed keys, health check, requests in flight, exchanges."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from hsm_core.errors import HSMError
from hsm_core.model import Record
from hsm_server.__about__ import __version__
from hsm_server.config.settings import ServerSettings
from hsm_server.identity.oidc_client import Provider
from hsm_server.limits.buckets import Quota
from hsm_server.limits.guard import AddressGuard
from hsm_server.limits.proxies import SourceAddresses
from hsm_server.observability.logs import Logger
from hsm_server.observability.metrics import Metrics
from hsm_server.observability.tracing import Tracing
from hsm_server.vault.access import VaultAccess

_PERIOD_SECONDS: Final = 1.0
STATUS_SECONDS: Final = 2.0
"""Timeout for the vault's answer."""


class Health(Record, frozen=True, kw_only=True):
    """
    Response of ``/healthz``, ``/livez`` and ``/readyz``.

    Attributes:
        status: ``ok``; ``degraded`` if something is wrong; ``unavailable`` if requests
            cannot be served, as ``/readyz`` reports.
    """

    status: str
    version: str
    uptime_seconds: int


class HealthCheck:
    """
    Health check: queries the status of the vault.

    Args:
        vault: The vault to query.

        metrics: Receive the state of audit log and store.
    """

    def __init__(self, vault: VaultAccess, metrics: Metrics) -> None:
        self._vault = vault
        self._metrics = metrics
        self._lock = asyncio.Lock()
        self._asked_at = float("-inf")
        self._state = ""
        self._serving = False
        self._alarms: set[str] = set()

    def note_alarm(self, source: str, *, is_active: bool) -> None:
        """Report degraded health while an alarm of TLS or token keys lasts."""
        if is_active:
            self._alarms.add(source)
        else:
            self._alarms.discard(source)

    async def refresh(self) -> None:
        """Query the status of the vault, at most once a second."""
        async with self._lock:
            if time.monotonic() - self._asked_at < _PERIOD_SECONDS:
                return
            try:
                async with asyncio.timeout(STATUS_SECONDS):
                    status = await self._vault.status()
            except (HSMError, TimeoutError):
                self._state, self._serving = "error", False
                self._metrics.show(None)
            else:
                self._state = status.state
                serves = status.state not in {"error", "locked"}
                self._serving = status.audit.available and serves
                self._metrics.show(status)
            self._asked_at = time.monotonic()

    async def check(self) -> tuple[Health, bool]:
        """Return the health, and whether requests can be served."""
        await self.refresh()
        is_whole = self._state == "operational" and not self._alarms
        return self._health("ok" if is_whole else "degraded"), self._serving

    async def check_ready(self) -> tuple[Health, bool]:
        """Return the readiness, and whether requests can be served."""
        await self.refresh()
        return self._health("ok" if self._serving else "unavailable"), self._serving

    async def check_alive(self) -> tuple[Health, bool]:
        """Return that this process responds, regardless of the vault."""
        return self._health("ok"), True

    def _health(self, status: str) -> Health:
        return Health(
            status=status,
            version=__version__,
            uptime_seconds=int(self._metrics.uptime_seconds),
        )


class InFlight:
    """
    In-flight requests: lets a shutdown wait for their responses.

    Attributes:
        is_draining: Whether responses now close their connections.
    """

    def __init__(self) -> None:
        self._busy: set[web.RequestHandler] = set()
        self._endless: dict[asyncio.Future[None], web.RequestHandler] = {}
        self._changed = asyncio.Event()
        self.is_draining = False

    def __contains__(self, connection: web.RequestHandler) -> bool:
        return connection in self._busy

    def begin(self, connection: web.RequestHandler) -> None:
        """Mark a connection as having a request in flight."""
        self._busy.add(connection)

    def end(self, connection: web.RequestHandler) -> None:
        """Mark its request as answered, or the connection as gone."""
        self._busy.discard(connection)
        self._changed.set()

    @contextlib.contextmanager
    def endless(self, connection: web.RequestHandler) -> Iterator[asyncio.Future[None]]:
        """
        Mark a response as endless: a shutdown ends it instead of waiting.

        The future is done when the drain begins, or by `end_stream`.
        """
        self.end(connection)
        ends: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        if self.is_draining:
            ends.set_result(None)
        self._endless[ends] = connection
        try:
            yield ends
        finally:
            del self._endless[ends]

    def begin_drain(self) -> None:
        """Close connections after their responses, and end endless responses."""
        self.is_draining = True
        for ends in self._endless:
            if not ends.done():
                ends.set_result(None)

    def end_stream(self, connection: web.RequestHandler) -> None:
        """End the endless responses of one connection."""
        for ends, whose in self._endless.items():
            if whose is connection and not ends.done():
                ends.set_result(None)

    async def drain(self, timeout_seconds: float) -> bool:
        """Wait until all requests are answered; return whether they were in time."""
        self.begin_drain()
        try:
            async with asyncio.timeout(timeout_seconds):
                while self._busy:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True


GUARD: Final = web.AppKey("GUARD", AddressGuard)
HEALTH: Final = web.AppKey("HEALTH", HealthCheck)
IN_FLIGHT: Final = web.AppKey("IN_FLIGHT", InFlight)
LOGGER: Final = web.AppKey("LOGGER", Logger)
METRICS: Final = web.AppKey("METRICS", Metrics)
PROVIDER: Final[web.AppKey[Provider | None]] = web.AppKey("PROVIDER")
SETTINGS: Final = web.AppKey("SETTINGS", ServerSettings)
SOURCES: Final = web.AppKey("SOURCES", SourceAddresses)
TRACING: Final = web.AppKey("TRACING", Tracing)
VAULT: Final = web.AppKey("VAULT", VaultAccess)


@dataclass(slots=True)
class Exchange:
    """
    Request data for log and metrics.

    Attributes:
        request_id: From the client, or generated.
        operation: Name of the operation or page.
        code: ``ok``, or the code of the problem.
        principal: The authenticated principal, once known.
        quota: The rest of their rate limit, if limited.
        revision: Newest change that a node of a cluster has applied; or 0.
        is_turned_away: Whether it was rejected early because of its address.
    """

    request_id: str
    operation: str = "none"
    code: str = "ok"
    principal: str = ""
    quota: Quota | None = None
    revision: int = 0
    is_turned_away: bool = False

    def know(self, principal: str) -> None:
        """Set the principal."""
        self.principal = principal

    def limit(self, quota: Quota) -> None:
        """Set the rest of the caller's rate limit."""
        self.quota = quota


_EXCHANGE: Final = web.RequestKey("_EXCHANGE", Exchange)


def start_exchange(request: web.Request, request_id: str) -> Exchange:
    """Attach log and metrics data to a request."""
    exchange = Exchange(request_id)
    request[_EXCHANGE] = exchange
    return exchange


def exchange_of(request: web.Request) -> Exchange | None:
    """Return the log and metrics data of a request, if attached."""
    return request.get(_EXCHANGE)


def begin_operation(request: web.Request, name: str) -> Exchange:
    """Set the operation or page."""
    exchange = exchange_of(request)
    if exchange is None:
        exchange = start_exchange(request, "")
    exchange.operation = name
    return exchange
