# SPDX-License-Identifier: MIT
"""
What the vault says of itself, as families of metrics.

Each function takes the status, or None where the vault doesn't answer; what nobody
knows is 0, or left out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric

from hsm_core.operations import ApprovalStatus, HSMStatus, ScheduleStatus
from hsm_server.telemetry.families import counter, gauge

__all__ = ["vault_families"]

_TRAIL_STATES: Final = ("ok", "reserve", "failing")


def vault_families(status: HSMStatus | None) -> Iterator[Metric]:
    """Give everything that a status tells."""
    yield gauge(
        "ferrohsm_vault_available",
        "1 if the process that holds the keys answers, else 0.",
        status is not None,
    )
    yield gauge(
        "ferrohsm_audit_available",
        "1 if the audit trail can be written, else 0.",
        status is not None and status.audit.available,
    )
    yield from _trail(status)
    yield from _store(status)
    yield from _policy(status)
    yield from _schedules(status)
    yield from _retention(status)
    yield from _approvals(status)


def _trail(status: HSMStatus | None) -> Iterator[Metric]:
    state = GaugeMetricFamily(
        "ferrohsm_audit_state",
        "1 for the state that the audit trail is in, else 0.",
        labels=("state",),
    )
    for name in _TRAIL_STATES:
        is_now = status is not None and status.audit.state == name
        state.add_metric((name,), float(is_now))
    yield state
    yield counter(
        "ferrohsm_audit_failures_total",
        "How often the audit trail could not be written any more.",
        status.audit.failures if status else None,
    )
    yield counter(
        "ferrohsm_audit_resumes_total",
        "How often the audit trail has healed itself.",
        status.audit.resumes if status else None,
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
        "ferrohsm_tampered_keys",
        "Keys that serve nothing because their stored form is not as it should be.",
        status.tampered_keys if status else 0,
    )
    yield gauge(
        "ferrohsm_store_compared_keys",
        "Keys that the current or last background comparison has compared.",
        status.store.compared if status else 0,
    )


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
