# SPDX-License-Identifier: MIT
"""
Metric families of the vault's status.

Each function takes the status, or None if the vault does not respond; unknown values
are 0 or left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric

from hsm_core.operations import ApprovalStatus, HSMStatus, ScheduleStatus
from hsm_server.observability.telemetry.algorithm_state import algorithm_families
from hsm_server.observability.telemetry.families import counter, gauge, state
from hsm_server.observability.telemetry.trail_state import trail_families

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
