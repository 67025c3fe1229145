# SPDX-License-Identifier: MIT
"""Metrics read from the vault's status on demand."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, TypeAlias

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from hsm_core.operations import HSMStatus

Row: TypeAlias = Callable[[HSMStatus | None], Metric]
"""Metric of a status; without a status a gauge is 0, and a counter has no sample."""


def _gauge(name: str, text: str, read: Callable[[HSMStatus], float]) -> Row:
    def show(status: HSMStatus | None) -> Metric:
        value = float(read(status)) if status else 0.0
        return GaugeMetricFamily(name, text, value=value)

    return show


def _counter(name: str, text: str, read: Callable[[HSMStatus], int]) -> Row:
    def show(status: HSMStatus | None) -> Metric:
        return CounterMetricFamily(name, text, value=read(status) if status else None)

    return show


def _state(
    name: str, text: str, states: Iterable[str], read: Callable[[HSMStatus], str]
) -> Row:
    """Return one value for each state: 1 for the present one, else 0."""

    def show(status: HSMStatus | None) -> Metric:
        family = GaugeMetricFamily(name, text, labels=("state",))
        for one in states:
            is_present = status is not None and one == read(status)
            family.add_metric((one,), float(is_present))
        return family

    return show


def _algorithms(status: HSMStatus | None) -> Metric:
    served = GaugeMetricFamily(
        "ferrohsm_algorithm_available",
        "1 for each available algorithm and its provider, else 0.",
        labels=("algorithm", "provider"),
    )
    for row in status.algorithms if status else ():
        is_served = float(row.status == "available")
        served.add_metric((row.algorithm.value, row.provider), is_served)
    return served


def _syncs(status: HSMStatus | None) -> Metric:
    times = HistogramMetricFamily(
        "ferrohsm_audit_sync_seconds",
        "Time to sync audit records to disk, in seconds.",
    )
    if status is not None and status.audit.syncs.bounds_seconds:
        found = status.audit.syncs
        bounds = [repr(bound) for bound in found.bounds_seconds]
        buckets = [*zip(bounds, found.within, strict=True), ("+Inf", found.count)]
        times.add_metric((), buckets, found.seconds)
    return times


_PROBLEMS: Final = (
    *("older", "newer", "missing", "foreign", "document", "blob", "counter", "index"),
    "kept",
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


_ROWS: Final[tuple[Row, ...]] = (
    _gauge(
        "ferrohsm_vault_available",
        "1 if the vault process responds, else 0.",
        lambda _: True,
    ),
    _state(
        "ferrohsm_state",
        "1 for the current state of the HSM, else 0.",
        ("operational", "degraded", "locked", "error"),
        lambda status: status.state,
    ),
    _gauge(
        "ferrohsm_audit_available",
        "1 if the audit log is writable, else 0.",
        lambda status: status.audit.available,
    ),
    _state(
        "ferrohsm_audit_state",
        "1 for the current state of the audit log, else 0.",
        ("ok", "reserve", "failing"),
        lambda status: status.audit.state,
    ),
    _counter(
        "ferrohsm_audit_failures_total",
        "Failures of the audit log: times that it became unwritable.",
        lambda status: status.audit.failures,
    ),
    _counter(
        "ferrohsm_audit_resumes_total",
        "Recoveries of the audit log after a failure.",
        lambda status: status.audit.resumes,
    ),
    _counter(
        "ferrohsm_audit_events_total",
        "Audit records ever written, including pruned ones.",
        lambda status: status.audit.head_seq + 1,
    ),
    _gauge(
        "ferrohsm_audit_length_records",
        "Audit records in the audit log.",
        lambda status: max(0, status.audit.head_seq + 1 - status.audit.first_seq),
    ),
    _syncs,
    _gauge(
        "ferrohsm_store_available",
        "1 if the key store is readable and writable, else 0.",
        lambda status: status.store.available,
    ),
    _gauge(
        "ferrohsm_locked",
        "1 if the HSM is locked because the key store does not match the audit "
        "log, else 0.",
        lambda status: bool(status.store.locked),
    ),
    _gauge("ferrohsm_keys", "Keys that are not destroyed.", lambda status: status.keys),
    _gauge(
        "ferrohsm_tampered_keys",
        "Keys disabled because their integrity check failed.",
        lambda status: status.tampered_keys,
    ),
    _findings,
    _gauge(
        "ferrohsm_store_compared_keys",
        "Keys checked by the current or last background check.",
        lambda status: status.store.compared,
    ),
    _gauge(
        "ferrohsm_self_test_stopped",
        "Algorithms stopped because a self-test failed.",
        lambda status: sum(row.status == "stopped" for row in status.algorithms),
    ),
    _algorithms,
    _counter(
        "ferrohsm_key_cache_hit_total",
        "Key cache hits.",
        lambda status: status.key_cache.hits,
    ),
    _counter(
        "ferrohsm_key_cache_miss_total",
        "Key cache misses: the key was read and decrypted.",
        lambda status: status.key_cache.misses,
    ),
    _counter(
        "ferrohsm_key_cache_store_total",
        "Decrypted keys added to the key cache.",
        lambda status: status.key_cache.stores,
    ),
    _gauge(
        "ferrohsm_policy_current",
        "1 if the current policy file is in force, or none is configured; else 0.",
        lambda status: status.policy.current,
    ),
    _counter(
        "ferrohsm_policy_reload_failures_total",
        "Policy files rejected on reload; the former grants stay unless withdrawn.",
        lambda status: status.policy.failures,
    ),
    _gauge(
        "ferrohsm_rotations_due",
        "Keys overdue for automatic rotation.",
        lambda status: status.schedules.rotations_due,
    ),
    _gauge(
        "ferrohsm_destructions_waiting",
        "Keys pending destruction.",
        lambda status: status.schedules.destructions,
    ),
    _gauge(
        "ferrohsm_destructions_held",
        "Scheduled destructions held back because the clock jumped.",
        lambda status: status.schedules.held,
    ),
    _gauge(
        "ferrohsm_clock_left_out_seconds",
        "Wall-clock time ignored because the clock jumped, in seconds.",
        lambda status: status.schedules.left_out_seconds,
    ),
    _gauge(
        "ferrohsm_retention_healthy",
        "1 if purges of old key versions run on time, else 0.",
        lambda status: status.retention.healthy,
    ),
    _gauge(
        "ferrohsm_retention_queue_length",
        "Old key versions due or scheduled for purge.",
        lambda status: status.retention.queue,
    ),
    _counter(
        "ferrohsm_retention_purge_scheduled_total",
        "Purges of old key versions scheduled.",
        lambda status: status.retention.scheduled_total,
    ),
    _counter(
        "ferrohsm_retention_purge_completed_total",
        "Purges of old key versions completed.",
        lambda status: status.retention.completed_total,
    ),
    _gauge(
        "ferrohsm_approvals_available",
        "1 if the approval store is readable and writable, else 0.",
        lambda status: status.approvals.available,
    ),
    _gauge(
        "ferrohsm_approvals_pending",
        "Approval requests waiting for decisions.",
        lambda status: status.approvals.pending,
    ),
    _gauge(
        "ferrohsm_approvals_granted",
        "Approvals granted and not yet consumed.",
        lambda status: status.approvals.granted,
    ),
    _gauge(
        "ferrohsm_approvals_tampered",
        "Approvals disabled because they do not match the audit log.",
        lambda status: status.approvals.findings,
    ),
    _gauge(
        "ferrohsm_cluster_node",
        "1 if this server is a node of a cluster, else 0.",
        lambda status: bool(status.cluster.node),
    ),
    _gauge(
        "ferrohsm_cluster_decides",
        "1 if this node is not fenced and reaches the database; 0 if it answers 503.",
        lambda status: status.cluster.decides,
    ),
    _gauge(
        "ferrohsm_cluster_nodes_live",
        "Live nodes, as of the last beat of this node.",
        lambda status: status.cluster.nodes_live,
    ),
    _gauge(
        "ferrohsm_cluster_revision",
        "Newest change that this node has applied.",
        lambda status: status.cluster.revision,
    ),
    _gauge(
        "ferrohsm_cluster_feed_lag_seconds",
        "Time since this node last read the newest change, in seconds.",
        lambda status: status.cluster.feed_lag_seconds,
    ),
    _counter(
        "ferrohsm_cluster_group_retries_total",
        "Audit record groups re-evaluated because of a concurrent change.",
        lambda status: status.cluster.group_retries,
    ),
    _gauge(
        "ferrohsm_cluster_policies",
        "Different policies in force on live nodes; more than 1 needs attention.",
        lambda status: status.cluster.policies,
    ),
    _gauge(
        "ferrohsm_cluster_standby",
        "1 if commits wait for a synchronous standby, else 0.",
        lambda status: status.cluster.has_standby,
    ),
    _gauge(
        "ferrohsm_cluster_clock_difference_seconds",
        "Clock offset of this node from the database, in seconds; positive if ahead.",
        lambda status: status.cluster.clock_difference_seconds,
    ),
    _gauge(
        "ferrohsm_cluster_level",
        "Format level that all nodes of the cluster support.",
        lambda status: status.cluster.level,
    ),
)
"""All metrics of a status, in the order of the exposition."""


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
        yield from (row(self.status) for row in _ROWS)
        yield self._certificates()
        yield GaugeMetricFamily(
            "ferrohsm_uptime_seconds",
            "Time since the server started, in seconds.",
            value=self.uptime_seconds,
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
