# SPDX-License-Identifier: MIT
"""The aiohttp application, for a listener or a test."""

from __future__ import annotations

from functools import partial

from aiohttp import web

from hsm_server.api.openapi import openapi_document
from hsm_server.api.routes import add_api_routes, add_metrics_route, add_service_routes
from hsm_server.config.settings import ServerSettings
from hsm_server.http.fast_path import FAST_PATH, FastPath
from hsm_server.http.middleware import answer_everything, set_common_headers
from hsm_server.http.state import (
    GUARD,
    HEALTH,
    IN_FLIGHT,
    LOGGER,
    METRICS,
    PROVIDER,
    SETTINGS,
    SOURCES,
    TRACING,
    VAULT,
    HealthCheck,
    InFlight,
)
from hsm_server.identity.oidc_client import Provider
from hsm_server.limits.guard import address_guard
from hsm_server.limits.proxies import SourceAddresses
from hsm_server.observability.logs import Logger
from hsm_server.observability.metrics import Metrics
from hsm_server.observability.tracing import NO_TRACING, Tracing
from hsm_server.ui import add_console
from hsm_server.vault.access import VaultAccess


def create_app(
    vault: VaultAccess,
    settings: ServerSettings,
    *,
    logger: Logger,
    metrics: Metrics | None = None,
    tracing: Tracing = NO_TRACING,
) -> web.Application:
    """
    Build the application in front of a vault.

    Args:
        vault: Interface of the vault, in this process or another.

        settings: Limits and rules; those of the listener are not used.

        logger: The service's log.

        metrics: Metrics of the process; new ones by default.

        tracing: Exporter of spans; the caller closes it.
    """
    metrics = metrics or Metrics()
    app = web.Application(middlewares=[answer_everything])
    app[VAULT] = vault
    app[GUARD] = guard = address_guard(settings.rates, metrics)
    vault.on_limits = guard.take_in
    app[HEALTH] = HealthCheck(vault, metrics)
    app[IN_FLIGHT] = InFlight()
    app[LOGGER] = logger
    app[METRICS] = metrics
    app[PROVIDER] = Provider(settings.oidc) if settings.oidc else None
    app[SETTINGS] = settings
    app[SOURCES] = SourceAddresses(settings.proxies)
    app[TRACING] = tracing
    app.on_response_prepare.append(set_common_headers)
    add_service_routes(app.router, partial(openapi_document, settings.limits))
    if settings.metrics.address is None:
        add_metrics_route(app.router)
    add_api_routes(app.router, settings.limits)
    if settings.console.is_on:
        add_console(app)
    app[FAST_PATH] = FastPath(app)
    return app


def create_metrics_app(app: web.Application) -> web.Application:
    """
    Build the application of a listener for metrics alone.

    Args:
        app: Application whose metrics are shown.
    """
    shown = web.Application(middlewares=[answer_everything])
    shown[VAULT] = app[VAULT]
    shown[GUARD] = app[GUARD]
    shown[HEALTH] = app[HEALTH]
    shown[LOGGER] = app[LOGGER]
    shown[METRICS] = app[METRICS]
    shown[SETTINGS] = app[SETTINGS]
    shown[SOURCES] = app[SOURCES]
    shown[TRACING] = app[TRACING]
    shown[IN_FLIGHT] = InFlight()
    shown.on_response_prepare.append(set_common_headers)
    add_metrics_route(shown.router)
    return shown
