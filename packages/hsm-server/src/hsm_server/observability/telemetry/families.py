# SPDX-License-Identifier: MIT
"""Metric families with a single value, read on demand."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily


def gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    """Return a value that goes up and down."""
    return GaugeMetricFamily(name, text, value=float(value))


def counter(name: str, text: str, value: int | None) -> CounterMetricFamily:
    """Return a counter family, without a sample if the value is unknown."""
    return CounterMetricFamily(name, text, value=value)


def state(
    name: str, text: str, states: Iterable[str], now: str | None
) -> GaugeMetricFamily:
    """Return one value for each state: 1 for the present one, else 0."""
    family = GaugeMetricFamily(name, text, labels=("state",))
    for one in states:
        family.add_metric((one,), float(one == now))
    return family
