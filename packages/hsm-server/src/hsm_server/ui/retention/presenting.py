# SPDX-License-Identifier: MIT
"""Retention report, legal holds and key retention as pages show them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from hsm_core.model import Integrity, KeyInfo, KeyState, VersionInfo
from hsm_core.operations import LedgerStatus, PurgeItem, RetentionReport
from hsm_server.ui.instants import microseconds
from hsm_server.ui.visible_text import visible

_STATES: Final = {
    "due": ("retention window ended", "info"),
    "asked": ("approval requested", "warn"),
    "refused": ("denied or expired", ""),
    "scheduled": ("purge scheduled", "warn"),
    "ripe": ("purged at the next run", "bad"),
}
_PAUSES: Final = {
    "leap": "the clock jumped; an approver must confirm the time",
    "limit": "the purges due exceed the limit",
    "state": "the stored retention state was lost or altered",
    "approvals": "the policy has no approver for purges",
    "trail": "the audit log was altered",
    "ledger": "the retention ledger does not match the audit log",
}


@dataclass(frozen=True, slots=True)
class DueRow:
    """
    Key material that is due or scheduled for purge.

    Attributes:
        words: Description of *state*.
        badge: Its badge.
    """

    key_id: str
    versions: str
    state: str
    words: str
    badge: str
    due_at: int
    window_days: int
    rule: str
    purge_at: int
    approval_id: str


@dataclass(frozen=True, slots=True)
class ReportView:
    """
    The retention report, as a page shows it.

    Attributes:
        paused: Why purges are paused, or empty.
        more: Number of queued items that are not in *items*.
        ledger_problem: Problem of the ledger, or empty.
    """

    enabled: bool
    policy_sha256: str
    default_days: int
    loaded_at: int
    problem: str
    paused: str
    pause_approval_id: str
    queue: int
    scheduled_total: int
    cancelled_total: int
    completed_total: int
    failures: int
    swept_at: int
    items: tuple[DueRow, ...]
    more: int
    ledger: LedgerStatus | None
    ledger_problem: str


def present(report: RetentionReport) -> ReportView:
    """Return the retention report, as a page shows it."""
    paused = _PAUSES.get(report.paused, visible(report.paused))
    return ReportView(
        enabled=report.enabled,
        policy_sha256=report.policy_sha256,
        default_days=report.default_days,
        loaded_at=microseconds(report.loaded_at),
        problem=visible(report.problem),
        paused=paused,
        pause_approval_id=report.pause_approval_id,
        queue=report.queue,
        scheduled_total=report.scheduled_total,
        cancelled_total=report.cancelled_total,
        completed_total=report.completed_total,
        failures=report.failures,
        swept_at=microseconds(report.swept_at),
        items=tuple(map(_due_row, report.items)),
        more=max(0, report.queue - len(report.items)),
        ledger=report.ledger,
        ledger_problem=_ledger_problem(report.ledger),
    )


def _ledger_problem(ledger: LedgerStatus | None) -> str:
    if ledger is None:
        return ""
    return visible(ledger.problem) or (
        "" if ledger.available else "the ledger can't be written"
    )


def _due_row(item: PurgeItem) -> DueRow:
    words, badge = _STATES.get(item.state, (item.state, ""))
    return DueRow(
        key_id=item.key_id,
        versions=", ".join(map(str, item.versions)),
        state=item.state,
        words=words,
        badge=badge,
        due_at=microseconds(item.due_at),
        window_days=item.window_days,
        rule=visible(item.rule),
        purge_at=microseconds(item.purge_at),
        approval_id=item.approval_id,
    )


@dataclass(frozen=True, slots=True)
class HeldRow:
    """A key on legal hold."""

    key_id: str
    name: str
    algorithm: str
    hold: str


def held_row(key: KeyInfo) -> HeldRow:
    """Return a key on legal hold."""
    return HeldRow(
        key.key_id,
        visible(key.name),
        key.algorithm.value if key.algorithm else "",
        visible(key.hold),
    )


@dataclass(frozen=True, slots=True)
class RetentionRow:
    """Retention of one key version."""

    version: int
    state: str
    retired_at: int
    revoked_at: int
    purge_at: int
    retain_until: int
    may_be_kept: bool


@dataclass(frozen=True, slots=True)
class ShownKey:
    """
    A key with its retention.

    Attributes:
        can_hold: Whether a legal hold is offered.
        can_extend: Whether a version's retention can be extended.
    """

    key_id: str
    name: str
    algorithm: str
    state: str
    generation: int
    hold: str
    destroy_at: int
    versions: tuple[RetentionRow, ...]
    can_hold: bool
    can_extend: bool


def present_key(key: KeyInfo, versions: tuple[VersionInfo, ...]) -> ShownKey:
    """Return a key and its versions, newest first."""
    rows = tuple(map(_version_row, reversed(versions)))
    sound = key.integrity is Integrity.OK and key.state is not KeyState.DESTROYED
    return ShownKey(
        key_id=key.key_id,
        name=visible(key.name),
        algorithm=key.algorithm.value if key.algorithm else "",
        state=key.state.value if key.state else "unknown",
        generation=key.generation,
        hold=visible(key.hold),
        destroy_at=microseconds(key.destroy_at),
        versions=rows,
        can_hold=sound and not key.hold,
        can_extend=sound and any(row.may_be_kept for row in rows),
    )


def _version_row(version: VersionInfo) -> RetentionRow:
    return RetentionRow(
        version=version.version,
        state=version.state.value,
        retired_at=microseconds(version.retired_at),
        revoked_at=microseconds(version.revoked_at),
        purge_at=microseconds(version.purge_at),
        retain_until=microseconds(version.retain_until),
        may_be_kept=version.state is not KeyState.DESTROYED,
    )
