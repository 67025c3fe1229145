# SPDX-License-Identifier: MIT
"""The server's counters, in a registry of their own."""

from __future__ import annotations

import time
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.exposition import generate_latest

from hsm_core.operations import AuditStatus, HSMStatus

__all__ = ["METRICS_CONTENT_TYPE", "Metrics"]

METRICS_CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
"""Media type of the Prometheus text format."""

_BUCKETS: Final = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)

_TRAIL_STATES: Final = ("ok", "reserve", "failing")


class _Total:
    """A counter that follows a number somebody else counts."""

    def __init__(self, name: str, text: str, registry: CollectorRegistry) -> None:
        self._counter = Counter(name, text, registry=registry)
        self._seen = 0

    def show(self, value: int) -> None:
        self._counter.inc(max(0, value - self._seen))
        self._seen = max(self._seen, value)


class TrailMetrics:
    """How the audit trail is."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._state = Gauge(
            "ferrohsm_audit_state",
            "1 for the state that the audit trail is in, else 0.",
            ("state",),
            registry=registry,
        )
        self._failures = _Total(
            "ferrohsm_audit_failures_total",
            "How often the audit trail could not be written any more.",
            registry,
        )
        self._resumes = _Total(
            "ferrohsm_audit_resumes_total",
            "How often the audit trail has healed itself.",
            registry,
        )

    def show(self, audit: AuditStatus) -> None:
        """Show it."""
        for state in _TRAIL_STATES:
            self._state.labels(state).set(1 if audit.state == state else 0)
        self._failures.show(audit.failures)
        self._resumes.show(audit.resumes)

    def show_nothing(self) -> None:
        """Show that nobody knows how it is."""
        for state in _TRAIL_STATES:
            self._state.labels(state).set(0)


class StoreMetrics:
    """How the key store is."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._available = Gauge(
            "ferrohsm_store_available",
            "1 if the key store can be read and written, else 0.",
            registry=registry,
        )
        self._locked = Gauge(
            "ferrohsm_locked",
            "1 if the HSM is locked, because its store is not what the trail knows.",
            registry=registry,
        )
        self._tampered = Gauge(
            "ferrohsm_tampered_keys",
            "Keys that serve nothing because their stored form is not as it should be.",
            registry=registry,
        )
        self._compared = Gauge(
            "ferrohsm_store_compared_keys",
            "Keys that the current or last background comparison has compared.",
            registry=registry,
        )

    def show(self, status: HSMStatus) -> None:
        """Show it."""
        self._available.set(1 if status.store.available else 0)
        self._locked.set(1 if status.store.locked else 0)
        self._tampered.set(status.tampered_keys)
        self._compared.set(status.store.compared)

    def show_nothing(self) -> None:
        """Show that nobody can reach it."""
        self._available.set(0)


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
        self._trail = TrailMetrics(self.registry)
        self._store = StoreMetrics(self.registry)
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

    def show(self, status: HSMStatus | None, /) -> None:
        """Show what the HSM says of itself; None if it doesn't answer."""
        available = status is not None and status.audit.available
        self._audit.set(1 if available else 0)
        if status is None:
            self._trail.show_nothing()
            self._store.show_nothing()
        else:
            self._trail.show(status.audit)
            self._store.show(status)

    def exposition(self) -> bytes:
        """Return all values in the Prometheus text format."""
        return generate_latest(self.registry)
