# SPDX-License-Identifier: MIT
"""The server's counters, in a registry of their own."""

from __future__ import annotations

import time
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

__all__ = ["METRICS_CONTENT_TYPE", "Metrics"]

METRICS_CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""Media type of the Prometheus text format."""

_BUCKETS: Final = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)


class Metrics:
    """
    Everything that ``/metrics`` shows. No label holds a key id or a principal.

    Attributes:
        registry: Registry of this object alone.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=True)
        self._started = time.monotonic()
        self._requests = Counter(
            "ferrohsm_requests_total",
            "Requests answered, by operation and result code.",
            ("operation", "code"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "ferrohsm_request_seconds",
            "Time from the head of a request to its answer, in seconds.",
            ("operation",),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._jwt_failures = Counter(
            "ferrohsm_auth_jwt_failure_total",
            "Requests refused for their bearer token, or for having none.",
            registry=self.registry,
        )
        self._unexpected = Counter(
            "ferrohsm_unexpected_exceptions_total",
            "Requests that failed for a reason nobody thought of.",
            registry=self.registry,
        )
        self._audit = Gauge(
            "ferrohsm_audit_available",
            "1 if the audit trail can be written, else 0.",
            registry=self.registry,
        )
        uptime = Gauge(
            "ferrohsm_uptime_seconds",
            "Time since the server started, in seconds.",
            registry=self.registry,
        )
        uptime.set_function(lambda: self.uptime_seconds)

    @property
    def uptime_seconds(self) -> float:
        """Time since this object was made, in seconds."""
        return time.monotonic() - self._started

    @property
    def unexpected(self) -> int:
        """How many unexpected exceptions there were."""
        value = self.registry.get_sample_value("ferrohsm_unexpected_exceptions_total")
        return int(value or 0)

    def count_request(self, operation: str, code: str, seconds: float) -> None:
        """Count one answer."""
        self._requests.labels(operation, code).inc()
        self._seconds.labels(operation).observe(seconds)

    def count_jwt_failure(self) -> None:
        """Count one request without valid token."""
        self._jwt_failures.inc()

    def count_unexpected(self) -> None:
        """Count one exception that is a fault of ours."""
        self._unexpected.inc()

    def set_audit_available(self, available: bool, /) -> None:
        """Show whether the trail can be written."""
        self._audit.set(1 if available else 0)

    def exposition(self) -> bytes:
        """Return all values in the Prometheus text format."""
        return generate_latest(self.registry)
