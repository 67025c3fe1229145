# SPDX-License-Identifier: MIT
"""
What the vault says of itself, as families of metrics.

Each function takes the status, or None where the vault doesn't answer; what nobody
knows is 0, or left out.
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
    """Give everything that a status tells."""
    yield gauge(
        "ferrohsm_vault_available",
        "1 if the process that holds the keys answers, else 0.",
        status is not None,
    )
    yield state(
        "ferrohsm_state",
        "1 for the state that the HSM is in, else 0.",
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
        "1 if the policy file that lies there is in force, or there is none.",
        status is not None and status.policy.current,
    )
    yield counter(
        "ferrohsm_policy_reload_failures_total",
        "How often a policy file was refused, and the last good one kept.",
        status.policy.failures if status else None,
    )


def _schedules(status: HSMStatus | None) -> Iterator[Metric]:
    found = status.schedules if status else ScheduleStatus()
    yield gauge(
        "ferrohsm_rotations_due",
        "Keys that should have been rotated, and could not be yet.",
        found.rotations_due,
    )
    yield gauge(
        "ferrohsm_destructions_waiting",
        "Keys that wait for their destruction.",
        found.destructions,
    )
    yield gauge(
        "ferrohsm_destructions_held",
        "Those of them whose time is over only because the clock leapt.",
        found.held,
    )
    yield gauge(
        "ferrohsm_clock_left_out_seconds",
        "Wall time that does not count because the clock leapt over it.",
        found.left_out_seconds,
    )


def _retention(status: HSMStatus | None) -> Iterator[Metric]:
    counts = status.retention if status else None
    yield gauge(
        "ferrohsm_retention_healthy",
        "1 if nothing keeps old key versions from being purged when they are due.",
        counts is not None and counts.healthy,
    )
    yield gauge(
        "ferrohsm_retention_queue_length",
        "Materials of old key versions that are due or wait for their purge.",
        counts.queue if counts else 0,
    )
    yield counter(
        "ferrohsm_retention_purge_scheduled_total",
        "Purges of old key versions that were scheduled.",
        counts.scheduled_total if counts else None,
    )
    yield counter(
        "ferrohsm_retention_purge_completed_total",
        "Purges of old key versions that were done.",
        counts.completed_total if counts else None,
    )


def _store(status: HSMStatus | None) -> Iterator[Metric]:
    yield gauge(
        "ferrohsm_store_available",
        "1 if the key store can be read and written, else 0.",
        status is not None and status.store.available,
    )
    yield gauge(
        "ferrohsm_locked",
        "1 if the HSM is locked, because its store is not what the trail knows.",
        status is not None and bool(status.store.locked),
    )
    yield gauge(
        "ferrohsm_keys",
        "Keys that are not destroyed.",
        status.keys if status else 0,
    )
    yield gauge(
        "ferrohsm_tampered_keys",
        "Keys that serve nothing because their stored form is not as it should be.",
        status.tampered_keys if status else 0,
    )
    yield _findings(status)
    yield gauge(
        "ferrohsm_store_compared_keys",
        "Keys that the current or last background comparison has compared.",
        status.store.compared if status else 0,
    )


def _findings(status: HSMStatus | None) -> Metric:
    found = GaugeMetricFamily(
        "ferrohsm_store_findings",
        "Keys that are not as the trail says, 100 at most, by what is wrong with them.",
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
        "How often a key was open in memory when it was needed.",
        found.hits if found else None,
    )
    yield counter(
        "ferrohsm_key_cache_miss_total",
        "How often a key had to be read and unsealed.",
        found.misses if found else None,
    )
    yield counter(
        "ferrohsm_key_cache_store_total",
        "How often an unsealed key was put where it stays open for a while.",
        found.stores if found else None,
    )


def _approvals(status: HSMStatus | None) -> Iterator[Metric]:
    found = status.approvals if status else ApprovalStatus(available=False)
    yield gauge(
        "ferrohsm_approvals_available",
        "1 if the store of approvals can be read and written, else 0.",
        found.available,
    )
    yield gauge(
        "ferrohsm_approvals_pending",
        "Requests for approval that wait for consent.",
        found.pending,
    )
    yield gauge(
        "ferrohsm_approvals_granted",
        "Approvals that are granted and not used.",
        found.granted,
    )
    yield gauge(
        "ferrohsm_approvals_tampered",
        "Approvals that serve nothing because they are not as the trail says.",
        found.findings,
    )
