# SPDX-License-Identifier: MIT
"""Metrics read from the vault's status on demand."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from hsm_core.operations import ApprovalStatus, AuditStatus, HSMStatus, ScheduleStatus


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


_DURABILITY_STATES: Final = ("ok", "reserve", "failing")


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
        _DURABILITY_STATES,
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


_PROBLEMS: Final = (
    *("older", "newer", "missing", "foreign", "document", "blob", "counter", "index"),
    "kept",
)
_STATES: Final = ("operational", "degraded", "locked", "error")


def vault_families(status: HSMStatus | None) -> Iterator[Metric]:
    """Yield all families of a status."""
    yield gauge(
        "ferrohsm_vault_available",
        "1 if the vault process responds, else 0.",
        status is not None,
    )
    yield state(
        "ferrohsm_state",
        "1 for the current state of the HSM, else 0.",
        _STATES,
        status.state if status else None,
    )
    yield from trail_families(status)
    yield from _store(status)
    yield from algorithm_families(status)
    yield from _key_cache(status)
    yield from _policy(status)
    yield from _schedules(status)
    yield from _retention(status)
    yield from _approvals(status)


def _policy(status: HSMStatus | None) -> Iterator[Metric]:
    yield gauge(
        "ferrohsm_policy_current",
        "1 if the current policy file is in force, or none is configured; else 0.",
        status is not None and status.policy.current,
    )
    yield counter(
        "ferrohsm_policy_reload_failures_total",
        "Policy files rejected on reload; the former grants stay unless withdrawn.",
        status.policy.failures if status else None,
    )


def _schedules(status: HSMStatus | None) -> Iterator[Metric]:
    found = status.schedules if status else ScheduleStatus()
    yield gauge(
        "ferrohsm_rotations_due",
        "Keys overdue for automatic rotation.",
        found.rotations_due,
    )
    yield gauge(
        "ferrohsm_destructions_waiting",
        "Keys pending destruction.",
        found.destructions,
    )
    yield gauge(
        "ferrohsm_destructions_held",
        "Scheduled destructions held back because the clock jumped.",
        found.held,
    )
    yield gauge(
        "ferrohsm_clock_left_out_seconds",
        "Wall time ignored because the clock jumped, in seconds.",
        found.left_out_seconds,
    )


def _retention(status: HSMStatus | None) -> Iterator[Metric]:
    counts = status.retention if status else None
    yield gauge(
        "ferrohsm_retention_healthy",
        "1 if purges of old key versions run on time, else 0.",
        counts is not None and counts.healthy,
    )
    yield gauge(
        "ferrohsm_retention_queue_length",
        "Old key versions due or scheduled for purge.",
        counts.queue if counts else 0,
    )
    yield counter(
        "ferrohsm_retention_purge_scheduled_total",
        "Purges of old key versions scheduled.",
        counts.scheduled_total if counts else None,
    )
    yield counter(
        "ferrohsm_retention_purge_completed_total",
        "Purges of old key versions completed.",
        counts.completed_total if counts else None,
    )


def _store(status: HSMStatus | None) -> Iterator[Metric]:
    yield gauge(
        "ferrohsm_store_available",
        "1 if the key store is readable and writable, else 0.",
        status is not None and status.store.available,
    )
    yield gauge(
        "ferrohsm_locked",
        "1 if the HSM is locked because the key store does not match the audit "
        "log, else 0.",
        status is not None and bool(status.store.locked),
    )
    yield gauge(
        "ferrohsm_keys",
        "Keys that are not destroyed.",
        status.keys if status else 0,
    )
    yield gauge(
        "ferrohsm_tampered_keys",
        "Keys disabled because their integrity check failed.",
        status.tampered_keys if status else 0,
    )
    yield _findings(status)
    yield gauge(
        "ferrohsm_store_compared_keys",
        "Keys checked by the current or last background check.",
        status.store.compared if status else 0,
    )


def _findings(status: HSMStatus | None) -> Metric:
    found = GaugeMetricFamily(
        "ferrohsm_store_findings",
        "Keys that do not match the audit log, by kind of mismatch; at most 100.",
        labels=("problem",),
    )
    findings = status.store.findings if status else ()
    counts = Counter(finding.problem for finding in findings)
    for problem in sorted({*_PROBLEMS, *counts}):
        found.add_metric((problem,), float(counts[problem]))
    return found


def _key_cache(status: HSMStatus | None) -> Iterator[Metric]:
    found = status.key_cache if status else None
    yield counter(
        "ferrohsm_key_cache_hit_total",
        "Key cache hits.",
        found.hits if found else None,
    )
    yield counter(
        "ferrohsm_key_cache_miss_total",
        "Key cache misses: the key was read and decrypted.",
        found.misses if found else None,
    )
    yield counter(
        "ferrohsm_key_cache_store_total",
        "Decrypted keys added to the key cache.",
        found.stores if found else None,
    )


def _approvals(status: HSMStatus | None) -> Iterator[Metric]:
    found = status.approvals if status else ApprovalStatus(available=False)
    yield gauge(
        "ferrohsm_approvals_available",
        "1 if the approval store is readable and writable, else 0.",
        found.available,
    )
    yield gauge(
        "ferrohsm_approvals_pending",
        "Approval requests waiting for decisions.",
        found.pending,
    )
    yield gauge(
        "ferrohsm_approvals_granted",
        "Approvals granted and not yet consumed.",
        found.granted,
    )
    yield gauge(
        "ferrohsm_approvals_tampered",
        "Approvals disabled because they do not match the audit log.",
        found.findings,
    )


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
