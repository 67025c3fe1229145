# SPDX-License-Identifier: MIT
"""Spans of requests, and the selection of an exporter."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import dataclass
from typing import Final, Protocol

from hsm_core.errors import ConfigurationError
from hsm_server.config.settings import TracingSettings

_PARENT: Final = re.compile(
    r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}\Z"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """
    Completed or cancelled request.

    Attributes:
        operation: Name of the operation or page; ``none`` for an unknown route.
        code: ``ok``, or the code of the problem.
        status: HTTP status; 0 without a response.
        method: HTTP method, or ``?``.
        request_id: The request ID, also in log and audit log.
        parent: Value of ``traceparent``; empty without one.
        began_ns: Start of the request, in nanoseconds since 1970.
        ended_ns: End of the request.
    """

    operation: str
    code: str
    status: int
    method: str
    request_id: str
    parent: str
    began_ns: int
    ended_ns: int


class Tracing(Protocol):
    """Recorder of requests."""

    def note(self, done: Done, /) -> str:
        """Take note of a request, and return the id of its trace; empty for none."""
        ...

    def close(self) -> None:
        """Send what waits to be sent, and nothing more; takes a second at most."""
        ...


class _NoTracing:
    """Recorder without an endpoint; the log still contains trace IDs."""

    def note(self, done: Done, /) -> str:
        """Return the id of the trace that the request says it is of."""
        return trace_id_of(done.parent)

    def close(self) -> None:
        """Do nothing."""


NO_TRACING: Final[Tracing] = _NoTracing()
"""Recorder without a tracing endpoint."""


def parent_of(given: list[str]) -> str:
    """Return the one ``traceparent`` that a request has, if it is one; else nothing."""
    return given[0] if len(given) == 1 and _PARENT.match(given[0]) else ""


def trace_id_of(parent: str) -> str:
    """
    Return the id of a trace, 32 hex digits, or nothing.

    Standard:
        W3C Trace Context, section 3.2, version 00.
    """
    found = _PARENT.match(parent)
    return found[1] if found else ""


_NEEDED = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")


def check_tracing(settings: TracingSettings) -> None:
    """
    Check that tracing is possible, if configured.

    Raises:
        ConfigurationError: What sends them must be installed first.
    """
    if settings.endpoint and not all(map(_is_there, _NEEDED)):
        raise ConfigurationError(
            "otel-endpoint: OpenTelemetry is not installed. Install hsm-server[otel]."
        )


def open_tracing(settings: TracingSettings) -> Tracing:
    """Return the recorder of requests; the caller closes it."""
    if not settings.endpoint:
        return NO_TRACING
    # It is heavy, and who doesn't send spans needn't have it.
    from hsm_server.observability.otlp import OTLPTracing

    return OTLPTracing(settings)


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False
