# SPDX-License-Identifier: MIT
"""Metrics of TLS handshakes and alarms."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

from hsm_server.observability.telemetry.instruments import Instruments


class TLSInstruments(Instruments):
    """Instruments of TLS handshakes and alarms."""

    def __init__(self) -> None:
        super().__init__()
        self._handshakes = Counter(
            "ferrohsm_tls_handshakes_total",
            "TLS handshakes, by outcome and key exchange group.",
            ("outcome", "group"),
            registry=self.registry,
        )
        self._tls_alarms = Counter(
            "ferrohsm_tls_alarms_total",
            "TLS alarms, by part: only withdrawals of an update took effect.",
            ("part",),
            registry=self.registry,
        )
        self._tls_alarm = Gauge(
            "ferrohsm_tls_alarm",
            "1 while an alarm is active for a part of TLS, else 0.",
            ("part",),
            registry=self.registry,
            multiprocess_mode="mostrecent",
        )
        self._refused_clients = Counter(
            "ferrohsm_ocsp_clients_refused_total",
            "Connections closed because OCSP reported the client certificate as "
            "revoked or had no answer.",
            ("reason",),
            registry=self.registry,
        )

    def count_handshake(self, outcome: str, group: str) -> None:
        """Count one TLS handshake, however it ended."""
        self._handshakes.labels(outcome, group).inc()

    def count_tls_alarm(self, part: str) -> None:
        """Count one alarm about TLS."""
        self._tls_alarms.labels(part).inc()

    def show_tls_alarm(self, part: str, *, is_on: bool) -> None:
        """Show whether something is wrong with a part of TLS."""
        self._tls_alarm.labels(part).set(is_on)

    def count_refused_client(self, reason: str) -> None:
        """Count one connection that was ended because of a client's certificate."""
        self._refused_clients.labels(reason).inc()
