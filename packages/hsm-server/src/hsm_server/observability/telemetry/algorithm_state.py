# SPDX-License-Identifier: MIT
"""Metrics of algorithms and self-tests, from the vault's status."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import GaugeMetricFamily, Metric

from hsm_core.operations import HSMStatus
from hsm_server.observability.telemetry.families import gauge


def algorithm_families(status: HSMStatus | None) -> Iterator[Metric]:
    """Return families of algorithms, providers and failed self-tests."""
    rows = status.algorithms if status else ()
    yield gauge(
        "ferrohsm_self_test_stopped",
        "Algorithms stopped because a self-test failed.",
        sum(row.status == "stopped" for row in rows),
    )
    served = GaugeMetricFamily(
        "ferrohsm_algorithm_available",
        "1 for each available algorithm and its provider, else 0.",
        labels=("algorithm", "provider"),
    )
    for row in rows:
        is_served = float(row.status == "available")
        served.add_metric((row.algorithm.value, row.provider), is_served)
    yield served
