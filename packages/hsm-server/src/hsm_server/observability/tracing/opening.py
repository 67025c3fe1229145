# SPDX-License-Identifier: MIT
"""Selection of the tracing exporter."""

from __future__ import annotations

import importlib.util

from hsm_core.errors import ConfigurationError
from hsm_server.config.settings import TracingSettings
from hsm_server.observability.tracing.spans import NO_TRACING, Tracing

_NEEDED = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")


def check_tracing(settings: TracingSettings) -> None:
    """
    Check that tracing is possible, if configured.

    Raises:
        ConfigurationError: What sends them must be installed first.
    """
    if settings.endpoint and not all(map(_is_there, _NEEDED)):
        raise ConfigurationError(
            "otel-endpoint: OpenTelemetry is not installed. Run: pip install "
            "opentelemetry-sdk opentelemetry-exporter-otlp-proto-http."
        )


def open_tracing(settings: TracingSettings) -> Tracing:
    """Return the recorder of requests; the caller closes it."""
    if not settings.endpoint:
        return NO_TRACING
    # It is heavy, and who doesn't send spans needn't have it.
    from hsm_server.observability.tracing.otlp import OTLPTracing

    return OTLPTracing(settings)


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
