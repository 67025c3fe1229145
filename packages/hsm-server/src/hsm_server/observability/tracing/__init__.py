# SPDX-License-Identifier: MIT
"""
Spans of requests, for distributed tracing.

Without an endpoint nothing is sent and OpenTelemetry is not loaded. A span has the
fields of a log line except the principal.
"""

from hsm_server.observability.tracing.opening import check_tracing, open_tracing
from hsm_server.observability.tracing.spans import (
    NO_TRACING,
    Done,
    Tracing,
    parent_of,
)

__all__ = [
    "NO_TRACING",
    "Done",
    "Tracing",
    "check_tracing",
    "open_tracing",
    "parent_of",
]
