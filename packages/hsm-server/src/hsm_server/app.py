# SPDX-License-Identifier: MIT
"""The application: what a listener serves, and what tests drive."""

from __future__ import annotations

from aiohttp import web

from hsm_core.protocols import AsyncHSMGateway
from hsm_server.app_keys import (
    GATEWAY,
    HEALTH,
    IN_FLIGHT,
    LOGGER,
    METRICS,
    SETTINGS,
    VERIFIER,
)
from hsm_server.clock import FlooredClock
from hsm_server.health import HealthCheck
from hsm_server.in_flight import InFlight
from hsm_server.logs import Logger
from hsm_server.middleware import answer_everything, set_common_headers
from hsm_server.openapi import openapi_document
from hsm_server.routes.api import add_api_routes
from hsm_server.routes.service import add_service_routes
from hsm_server.settings import ServerSettings
from hsm_server.telemetry import Metrics
from hsm_server.tokens import TokenVerifier

__all__ = ["create_app"]


def create_app(
    gateway: AsyncHSMGateway,
    settings: ServerSettings,
    *,
    jwt_secret: bytes,
    logger: Logger,
    clock: FlooredClock | None = None,
) -> web.Application:
    """
    Build the application over an open HSM, which stays the caller's to close.

    Args:
        gateway: The HSM.

        settings: Limits and rules; the listener's own are not looked at.

        jwt_secret: HS256 key of bearer tokens, at least 32 bytes.

        logger: The service's log.

        clock: Time by which tokens expire; the system's by default.
    """
    now = (clock or FlooredClock()).now
    metrics = Metrics()
    app = web.Application(middlewares=[answer_everything])
    app[GATEWAY] = gateway
    app[HEALTH] = HealthCheck(gateway, metrics)
    app[IN_FLIGHT] = InFlight()
    app[LOGGER] = logger
    app[METRICS] = metrics
    app[SETTINGS] = settings
    app[VERIFIER] = TokenVerifier(jwt_secret, settings.tokens, now)
    app.on_response_prepare.append(set_common_headers)
    add_service_routes(app.router, openapi_document(settings.limits))
    add_api_routes(app.router, settings.limits)
    return app
