# SPDX-License-Identifier: MIT
"""Typed application state, and the state of each request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from aiohttp import web

from hsm_server.config.settings import ServerSettings
from hsm_server.http.health import HealthCheck
from hsm_server.http.in_flight import InFlight
from hsm_server.identity.oidc.provider import Provider
from hsm_server.limits.buckets import Quota
from hsm_server.limits.guard import AddressGuard
from hsm_server.limits.proxies import SourceAddresses
from hsm_server.observability.logs import Logger
from hsm_server.observability.metrics import Metrics
from hsm_server.observability.tracing import Tracing
from hsm_server.vault.access import VaultAccess

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
        is_turned_away: Whether it was rejected early because of its address.
    """

    request_id: str
    operation: str = "none"
    code: str = "ok"
    principal: str = ""
    quota: Quota | None = None
    is_turned_away: bool = False

    def know(self, principal: str) -> None:
        """Set the principal."""
        self.principal = principal

    def limit(self, quota: Quota) -> None:
        """Set the rest of the caller's rate limit."""
        self.quota = quota


_EXCHANGE: Final = web.RequestKey("_EXCHANGE", Exchange)


def start_exchange(request: web.Request, request_id: str) -> Exchange:
    """Begin the notes of a request."""
    exchange = Exchange(request_id)
    request[_EXCHANGE] = exchange
    return exchange


def exchange_of(request: web.Request) -> Exchange | None:
    """Return the notes of a request, if they were begun."""
    return request.get(_EXCHANGE)


def begin_operation(request: web.Request, name: str) -> Exchange:
    """Set the operation or page."""
    exchange = exchange_of(request)
    if exchange is None:
        exchange = start_exchange(request, "")
    exchange.operation = name
    return exchange
