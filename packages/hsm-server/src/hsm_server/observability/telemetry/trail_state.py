# SPDX-License-Identifier: MIT
"""Metric families of the audit log, from the vault's status."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client.core import HistogramMetricFamily, Metric

from hsm_core.operations import AuditStatus, HSMStatus
from hsm_server.observability.telemetry.families import counter, gauge, state

_STATES: Final = ("ok", "reserve", "failing")


def trail_families(status: HSMStatus | None) -> Iterator[Metric]:
    """Yield the audit log's state, length and sync times."""
    trail = status.audit if status else None
    yield gauge(
        "ferrohsm_audit_available",
        "1 if the audit log is writable, else 0.",
        trail is not None and trail.available,
    )
    yield state(
        "ferrohsm_audit_state",
        "1 for the current state of the audit log, else 0.",
        _STATES,
        trail.state if trail else None,
    )
    yield counter(
        "ferrohsm_audit_failures_total",
        "Failures of the audit log: it became unwritable.",
        trail.failures if trail else None,
    )
    yield counter(
        "ferrohsm_audit_resumes_total",
        "Recoveries of the audit log after a failure.",
        trail.resumes if trail else None,
    )
    yield counter(
        "ferrohsm_audit_events_total",
        "Audit records ever written, including pruned ones.",
        trail.head_seq + 1 if trail else None,
    )
    yield gauge(
        "ferrohsm_audit_length_records",
        "Audit records in the audit log.",
        max(0, trail.head_seq + 1 - trail.first_seq) if trail else 0,
    )
    yield _syncs(trail)


def _syncs(trail: AuditStatus | None) -> Metric:
    times = HistogramMetricFamily(
        "ferrohsm_audit_sync_seconds",
        "Time to sync audit records to disk, in seconds.",
    )
    if trail is not None and trail.syncs.bounds_seconds:
        found = trail.syncs
        bounds = [repr(bound) for bound in found.bounds_seconds]
        buckets = [*zip(bounds, found.within, strict=True), ("+Inf", found.count)]
        times.add_metric((), buckets, found.seconds)
    return times
