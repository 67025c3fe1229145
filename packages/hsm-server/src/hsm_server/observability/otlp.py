# SPDX-License-Identifier: MIT
"""OpenTelemetry spans, exported by OTLP over HTTP in a separate thread."""

from __future__ import annotations

import threading
from typing import Final

from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    ParentBased,
    Sampler,
    TraceIdRatioBased,
)
from opentelemetry.trace import SpanKind, Status, StatusCode, format_trace_id
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from hsm_server.__about__ import __version__
from hsm_server.config.settings import TracingSettings
from hsm_server.observability.tracing import Done, trace_id_of

_EXPORT_SECONDS: Final = 5.0
_CLOSE_SECONDS: Final = 0.75
_METHODS: Final = frozenset(
    {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"}
)
_UNTRACED: Final = frozenset({"healthz", "livez", "readyz", "metrics"})
"""Endpoints that machines poll."""


class OTLPTracing:
    """
    Exporter of one span per request.

    Failed exports are dropped and delay no request; at most 2048 spans wait.

    Args:
        settings: Endpoint and sampler.

        exporter: Exporter to use instead of the configured endpoint.
    """

    def __init__(
        self, settings: TracingSettings, exporter: SpanExporter | None = None
    ) -> None:
        resource = Resource(
            {
                **dict(settings.attributes),
                "service.name": settings.service_name,
                "service.version": __version__,
            }
        )
        self._provider = TracerProvider(
            sampler=_sampler(settings), resource=resource, shutdown_on_exit=False
        )
        self._provider.add_span_processor(
            BatchSpanProcessor(exporter or _exporter(settings))
        )
        self._tracer = self._provider.get_tracer("hsm_server", __version__)
        self._propagator = TraceContextTextMapPropagator()

    def note(self, done: Done, /) -> str:
        """See `Tracing.note`."""
        if done.operation in _UNTRACED:
            return trace_id_of(done.parent)
        context = Context()
        if done.parent:
            context = self._propagator.extract({"traceparent": done.parent}, context)
        span = self._tracer.start_span(
            done.operation,
            context=context,
            kind=SpanKind.SERVER,
            attributes=_attributes(done),
            start_time=done.began_ns,
        )
        if done.status == 0 or done.status >= 500:
            span.set_status(Status(StatusCode.ERROR))
        span.end(end_time=done.ended_ns)
        return format_trace_id(span.get_span_context().trace_id)

    def close(self) -> None:
        """See `Tracing.close`."""
        # The collector may be gone; a shutdown must not wait for it.
        closing = threading.Thread(target=self._provider.shutdown, daemon=True)
        closing.start()
        closing.join(_CLOSE_SECONDS)


def _attributes(done: Done) -> dict[str, str | int]:
    """Return the attributes of a span, without principal and key."""
    told: dict[str, str | int] = {
        "http.request.method": done.method if done.method in _METHODS else "_OTHER",
        "ferrohsm.operation": done.operation,
        "ferrohsm.code": done.code,
        "ferrohsm.request_id": done.request_id,
    }
    if done.status:
        told["http.response.status_code"] = done.status
    if done.code != "ok":
        told["error.type"] = done.code
    return told


def _exporter(settings: TracingSettings) -> SpanExporter:
    certificate = settings.certificate
    return OTLPSpanExporter(
        endpoint=settings.endpoint,
        certificate_file=str(certificate) if certificate is not None else None,
        timeout=_EXPORT_SECONDS,
    )


def _sampler(settings: TracingSettings) -> Sampler:
    name = settings.sampler.removeprefix("parentbased_")
    root: Sampler = {
        "always_on": ALWAYS_ON,
        "always_off": ALWAYS_OFF,
        "traceidratio": TraceIdRatioBased(settings.ratio),
    }[name]
    return ParentBased(root) if name != settings.sampler else root
