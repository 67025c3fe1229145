# SPDX-License-Identifier: MIT
"""Metrics of rate limits."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from hsm_server.observability.telemetry.instruments import Children, Instruments


class LimitInstruments(Instruments):
    """Instruments of rate limits."""

    def __init__(self) -> None:
        super().__init__()
        self._allowed = Counter(
            "ferrohsm_rate_limit_allowed_total",
            "Requests allowed by a limit, by limit.",
            ("limit",),
            registry=self.registry,
        )
        self._blocked = Counter(
            "ferrohsm_rate_limit_blocked_total",
            "Requests rejected by a limit, by limit.",
            ("limit",),
            registry=self.registry,
        )
        self._buckets = Gauge(
            "ferrohsm_rate_limit_buckets",
            "Callers and addresses with a bucket of their own, by limit.",
            ("limit",),
            registry=self.registry,
            multiprocess_mode="sum",
        )
        self._shown: dict[str, int] = {}
        # What rises from nothing does not rise for who looks at increases.
        self._allowed_of = Children(self._allowed, ("actor",))
        self._blocked_of = Children(
            self._blocked, ("actor",), ("address",), ("failures",)
        )

    def count_allowed(self, limit: str) -> None:
        """Count one request that was let through."""
        self._allowed_of[limit,].inc()

    def count_blocked(self, limit: str) -> None:
        """Count one request that was refused."""
        self._blocked_of[limit,].inc()

    def show_buckets(self, limit: str, number: int) -> None:
        """Show how many buckets there are."""
        if self._shown.get(limit) != number:
            self._shown[limit] = number
            self._buckets.labels(limit).set(number)
