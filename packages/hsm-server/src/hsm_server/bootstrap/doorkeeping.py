# SPDX-License-Identifier: MIT
"""Makes what decides who a visitor is."""

from __future__ import annotations

from hsm_core.protocols import AsyncHSMGateway
from hsm_server.clock import FlooredClock
from hsm_server.gatekeeper import Gatekeeper
from hsm_server.settings import ServerSettings
from hsm_server.telemetry import Metrics
from hsm_server.tokens import TokenVerifier

__all__ = ["make_gatekeeper", "make_verifier"]

_CLOCK = FlooredClock()


def make_verifier(jwt_secret: bytes, settings: ServerSettings) -> TokenVerifier:
    """Return a verifier of tokens with nothing in its cache."""
    return TokenVerifier(jwt_secret, settings.tokens, _CLOCK.now)


def make_gatekeeper(
    gateway: AsyncHSMGateway,
    settings: ServerSettings,
    jwt_secret: bytes,
    metrics: Metrics,
) -> Gatekeeper:
    """Return the gatekeeper of an HSM, whose failures are counted."""
    verifier = make_verifier(jwt_secret, settings)
    return Gatekeeper(gateway, verifier, metrics.count_jwt_failure)
