# SPDX-License-Identifier: MIT
"""What is true at the moment: of the vault, the certificates and the service."""

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
    Tells the state as it was when it was last asked for.

    Args:
        started: Instant of the monotonic clock at which the service began.

    Attributes:
        status: What the vault says of itself; None if it doesn't answer.
        certificates: Until when each in use is valid, in Unix time, by kind.
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
        """Give each value as a family."""
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
            "Until when the certificate in use is valid, with its chain, in Unix time.",
            labels=("kind",),
        )
        for kind, instant in self.certificates.items():
            ends.add_metric((kind,), instant)
        return ends
