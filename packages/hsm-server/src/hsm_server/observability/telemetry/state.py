# SPDX-License-Identifier: MIT
"""Current state of vault, certificates and service, as metrics."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hsm_core.operations import HSMStatus
from hsm_server.observability.telemetry.families import gauge
from hsm_server.observability.telemetry.vault_state import vault_families


class StateCollector(Collector):
    """
    Collector of the last known state.

    Args:
        started: Start of the service on the monotonic clock.

    Attributes:
        status: Status of the vault; None if it does not respond.
        certificates: Expiry of each certificate in use, in Unix time, by kind.
    """

    def __init__(self, started: float) -> None:
        self._started = started
        self.status: HSMStatus | None = None
        self.certificates: Mapping[str, float] = {}

    @property
    def uptime_seconds(self) -> float:
        """Time since the service began."""
        return time.monotonic() - self._started

    def collect(self) -> Iterator[Metric]:
        """Yield each value as a family."""
        yield from vault_families(self.status)
        yield self._certificates()
        yield gauge(
            "ferrohsm_uptime_seconds",
            "Time since the server started, in seconds.",
            self.uptime_seconds,
        )

    def _certificates(self) -> Metric:
        ends = GaugeMetricFamily(
            "ferrohsm_tls_certificate_not_after_seconds",
            "Expiry of the TLS certificate in use and its chain, in Unix time.",
            labels=("kind",),
        )
        for kind, instant in self.certificates.items():
            ends.add_metric((kind,), instant)
        return ends
