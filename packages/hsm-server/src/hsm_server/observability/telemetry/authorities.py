# SPDX-License-Identifier: MIT
"""Metrics of OCSP queries and ACME orders."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from hsm_server.observability.telemetry.instruments import Instruments


class AuthorityInstruments(Instruments):
    """Instruments of OCSP queries and ACME orders."""

    def __init__(self) -> None:
        super().__init__()
        self._ocsp = Counter(
            "ferrohsm_ocsp_questions_total",
            "OCSP queries, by certificate and outcome.",
            ("about", "result"),
            registry=self.registry,
        )
        self._staples = Gauge(
            "ferrohsm_ocsp_staple_expires_seconds",
            "Expiry of the OCSP staple of a certificate, in Unix time; 0 "
            "without a staple.",
            ("kind",),
            registry=self.registry,
            multiprocess_mode="mostrecent",
        )
        self._acme_orders = Counter(
            "ferrohsm_acme_orders_total",
            "Certificate orders at the ACME CA, by outcome.",
            ("outcome",),
            registry=self.registry,
        )
        self._acme_next = Gauge(
            "ferrohsm_acme_next_order_seconds",
            "Time of the next certificate order, in Unix time.",
            ("authority",),
            registry=self.registry,
            multiprocess_mode="mostrecent",
        )

    def count_ocsp(self, about: str, result: str) -> None:
        """Count one question to an OCSP responder."""
        self._ocsp.labels(about, result).inc()

    def show_staple(self, kind: str, expires_at: float) -> None:
        """Show until when a staple is good, in Unix time; 0 for none."""
        self._staples.labels(kind).set(expires_at)

    def count_order(self, outcome: str) -> None:
        """Count one certificate that was ordered, or should have been."""
        self._acme_orders.labels(outcome).inc()

    def show_next_order(self, authority: str, instant: float) -> None:
        """Show when a CA is next asked for a certificate, in Unix time."""
        self._acme_next.labels(authority).set(instant)
