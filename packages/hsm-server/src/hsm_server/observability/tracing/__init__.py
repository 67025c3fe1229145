# SPDX-License-Identifier: MIT
"""
Spans of requests, for who follows a request through several services.

Nothing is sent, and nothing of OpenTelemetry is loaded, unless the settings say where
spans go. A span holds what a line of the log does, but for who asked.
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
