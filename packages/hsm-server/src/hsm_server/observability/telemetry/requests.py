# SPDX-License-Identifier: MIT
"""Metrics of requests and their duration."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Histogram

from hsm_server.observability.telemetry.instruments import Children, Instruments

_BUCKETS: Final = (
    *(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)


class RequestInstruments(Instruments):
    """Instruments of requests and their duration."""

    def __init__(self) -> None:
        super().__init__()
        self._requests = Counter(
            "ferrohsm_requests_total",
            "Requests answered, by operation and result code.",
            ("operation", "code"),
            registry=self.registry,
        )
        self._seconds = Histogram(
            "ferrohsm_request_seconds",
            "Time from the head of a request to its response, in seconds.",
            ("operation",),
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self._by_result = Children(self._requests)
        self._by_operation = Children(self._seconds)
        self._unexpected = Counter(
            "ferrohsm_unexpected_exceptions_total",
            "Requests that failed with an unexpected exception.",
            registry=self.registry,
        )

    @property
    def unexpected(self) -> int:
        """How many unexpected exceptions there were."""
        value = self.registry.get_sample_value("ferrohsm_unexpected_exceptions_total")
        return int(value or 0)

    def count_request(self, operation: str, code: str, seconds: float) -> None:
        """Count one answer."""
        self._by_result[operation, code].inc()
        self._by_operation[operation,].observe(seconds)

    def count_unexpected(self) -> None:
        """Count an unexpected exception."""
        self._unexpected.inc()
