# SPDX-License-Identifier: MIT
"""What ``/metrics`` shows of limits."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge

__all__ = ["LimitMetrics"]


class LimitMetrics:
    """
    Counts what was let through and what was not.

    Args:
        registry: Where the metrics are shown.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self._allowed = Counter(
            "ferrohsm_rate_limit_allowed_total",
            "Requests that a limit has let through, by limit.",
            ("limit",),
            registry=registry,
        )
        self._blocked = Counter(
            "ferrohsm_rate_limit_blocked_total",
            "Requests that a limit has refused, by limit.",
            ("limit",),
            registry=registry,
        )
        self._buckets = Gauge(
            "ferrohsm_rate_limit_buckets",
            "Callers who have a bucket of their own, by limit.",
            ("limit",),
            registry=registry,
            multiprocess_mode="sum",
        )
        self._shown: dict[str, int] = {}

    def count_allowed(self, limit: str) -> None:
        """Count one request that was let through."""
        self._allowed.labels(limit).inc()

    def count_blocked(self, limit: str) -> None:
        """Count one request that was refused."""
        self._blocked.labels(limit).inc()

    def show_buckets(self, limit: str, number: int) -> None:
        """Show how many buckets there are."""
        if self._shown.get(limit) != number:
            self._shown[limit] = number
            self._buckets.labels(limit).set(number)
