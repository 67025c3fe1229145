# SPDX-License-Identifier: MIT
"""What the vault says of the audit trail, as families of metrics."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client.core import HistogramMetricFamily, Metric

from hsm_core.operations import AuditStatus, HSMStatus
from hsm_server.observability.telemetry.families import counter, gauge, state

_STATES: Final = ("ok", "reserve", "failing")


def trail_families(status: HSMStatus | None) -> Iterator[Metric]:
    """Give the state of the trail, its length, and how long its disk takes."""
    trail = status.audit if status else None
    yield gauge(
        "ferrohsm_audit_available",
        "1 if the audit trail can be written, else 0.",
        trail is not None and trail.available,
    )
    yield state(
        "ferrohsm_audit_state",
        "1 for the state that the audit trail is in, else 0.",
        _STATES,
        trail.state if trail else None,
    )
    yield counter(
        "ferrohsm_audit_failures_total",
        "How often the audit trail could not be written any more.",
        trail.failures if trail else None,
    )
    yield counter(
        "ferrohsm_audit_resumes_total",
        "How often the audit trail has healed itself.",
        trail.resumes if trail else None,
    )
    yield counter(
        "ferrohsm_audit_events_total",
        "Records that were ever written to the trail, those that were pruned too.",
        trail.head_seq + 1 if trail else None,
    )
    yield gauge(
        "ferrohsm_audit_length_records",
        "Records that the trail holds.",
        max(0, trail.head_seq + 1 - trail.first_seq) if trail else 0,
    )
    yield _syncs(trail)


def _syncs(trail: AuditStatus | None) -> Metric:
    times = HistogramMetricFamily(
        "ferrohsm_audit_sync_seconds",
        "How long it took to make records of the trail durable, in seconds.",
    )
    if trail is not None and trail.syncs.bounds_seconds:
        found = trail.syncs
        bounds = [repr(bound) for bound in found.bounds_seconds]
        buckets = [*zip(bounds, found.within, strict=True), ("+Inf", found.count)]
        times.add_metric((), buckets, found.seconds)
    return times
