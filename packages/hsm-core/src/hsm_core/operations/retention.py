# SPDX-License-Identifier: MIT
"""Retention of old key material: windows, legal holds, purges."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from hsm_core.model import KeyId, KeyInfo, Record
from hsm_core.operations.base import (
    Effect,
    Instant,
    KeyReference,
    Operation,
    Route,
    VersionNumber,
    Why,
)

__all__ = [
    "BeginLedger",
    "ExtendRetention",
    "HoldKey",
    "LedgerBegun",
    "LedgerStatus",
    "PurgeItem",
    "ReleaseKey",
    "RetentionCounts",
    "RetentionReport",
    "RetentionStatus",
]


class RetentionCounts(Record, frozen=True, kw_only=True):
    """
    Retention counters; `RetentionStatus` returns the full report.

    Attributes:
        enabled: Whether the scheduler is enabled.
        healthy: Whether the policy file and the ledger are healthy, and no purge waits
            for an approval.
        queue: Number of key materials due or scheduled for a purge.
        scheduled_total: Purges scheduled since the HSM was opened.
        completed_total: Purges done since the HSM was opened.
    """

    enabled: bool = False
    healthy: bool = True
    queue: int = 0
    scheduled_total: int = 0
    completed_total: int = 0


class LedgerStatus(Record, frozen=True, kw_only=True):
    """
    State of the retention ledger.

    Attributes:
        available: Whether the ledger can be written.
        problem: Reason why it failed its check, or empty.
        log_id: 32 hex digits.
        head_seq: Newest record, -1 if there is none.
        head_hash: Leaf hash of that record, hex; store it elsewhere to compare later.
    """

    available: bool
    log_id: str
    head_seq: int
    head_hash: str
    problem: str = ""


class LedgerBegun(Record, frozen=True, kw_only=True):
    """
    New retention ledger that replaced a lost one.

    Attributes:
        log_id: ID of the new ledger, 32 hex digits.
        former_log_id: ID of the lost ledger.
        former_head_seq: Newest known record of the lost ledger.
        former_head_hash: Leaf hash of that record, hex.
    """

    log_id: str
    former_log_id: str
    former_head_seq: int
    former_head_hash: str


class PurgeItem(Record, frozen=True, kw_only=True):
    """
    Key material that is due or scheduled for a purge.

    Attributes:
        version: Newest version with this material.
        versions: All versions with this material.
        state: ``due``; ``asked``: approval requested; ``refused``: approval recently
            denied or expired; ``scheduled``: in the grace period; ``ripe``: after the
            grace period.
        due_at: End of the retention window.
        window_days: Length of the window.
        rule: Source of the window: ``default``, ``tag:…`` or ``override:…``.
        purge_at: End of the grace period.
        approval_id: ID of the requested approval.
    """

    key_id: KeyId
    version: int
    versions: tuple[int, ...]
    state: str
    due_at: datetime
    window_days: int
    rule: str
    purge_at: datetime | None = None
    approval_id: str = ""


class RetentionReport(Record, frozen=True, kw_only=True):
    """
    Retention report, as of the last sweep.

    Attributes:
        enabled: Whether the scheduler is enabled; it requires a policy file and a
            ledger.
        policy_sha256: SHA-256 of the retention policy in force, hex; empty if there is
            none, and then nothing is purged.
        default_days: Default window, in days; 0 if there is no policy.
        loaded_at: Time at which the policy was loaded.
        problem: Error in the policy file; the last valid policy stays in force.
        paused: Reason why purges are paused: empty, ``leap``, ``limit``, ``state``,
            ``approvals``, ``trail`` or ``ledger``.
        pause_approval_id: ID of the approval that resumes purges.
        ledger: State of the ledger; None if there is none.
        queue: Number of key materials due or scheduled for a purge.
        scheduled_total: Purges scheduled since the HSM was opened.
        cancelled_total: Scheduled purges that the scheduler cancelled.
        completed_total: Purges done since the HSM was opened.
        failures: Keys that the last sweep could not process; they are retried.
        swept_at: End of the last sweep.
        items: First 100 items of the queue.
        node: In a cluster, the node that runs the scheduler, if it is another one; only
            its report has more.
    """

    enabled: bool
    policy_sha256: str = ""
    default_days: int = 0
    loaded_at: datetime | None = None
    problem: str = ""
    paused: str = ""
    pause_approval_id: str = ""
    ledger: LedgerStatus | None = None
    queue: int = 0
    scheduled_total: int = 0
    cancelled_total: int = 0
    completed_total: int = 0
    failures: int = 0
    swept_at: datetime | None = None
    items: tuple[PurgeItem, ...] = ()
    node: str = ""


class ExtendRetention(Operation[KeyInfo], frozen=True, kw_only=True):
    """
    Extend the retention of a version, overriding the retention policy.

    An extension can't be shortened. A scheduled purge of the material is cancelled.

    Attributes:
        version: Version; applies to all versions with the same material.
        until: New end of retention; must be in the future and not before an earlier
            extension.
    """

    effect: ClassVar = Effect.MUTATION
    route: ClassVar = Route(
        "POST",
        "/keys/{key_id}/retention/extend",
        example={
            "key_id": "release-signer",
            "version": 2,
            "until": "2030-01-31T12:00:00Z",
        },
    )

    key_id: KeyReference
    version: VersionNumber
    until: Instant


class HoldKey(Operation[KeyInfo], frozen=True, kw_only=True):
    """
    Place a legal hold on a key: no purge or destruction until `ReleaseKey`.

    Scheduled purges of the key are cancelled.

    Attributes:
        reason: Stored with the key and in the audit log.
    """

    effect: ClassVar = Effect.MUTATION
    route: ClassVar = Route(
        "POST",
        "/keys/{key_id}/hold",
        example={"key_id": "release-signer", "reason": "case 17/2026"},
    )

    key_id: KeyReference
    reason: Why


class ReleaseKey(Operation[KeyInfo], frozen=True, kw_only=True):
    """
    Remove the legal hold of a key.

    Attributes:
        reason: Recorded in the audit log.
    """

    effect: ClassVar = Effect.MUTATION
    route: ClassVar = Route(
        "POST",
        "/keys/{key_id}/release",
        example={"key_id": "release-signer", "reason": "case 17/2026 is closed"},
    )

    key_id: KeyReference
    reason: Why


class RetentionStatus(Operation[RetentionReport], frozen=True, kw_only=True):
    """Return the retention report."""

    effect: ClassVar = Effect.READ
    route: ClassVar = Route("GET", "/retention")


class BeginLedger(Operation[LedgerBegun], frozen=True, kw_only=True):
    """
    Replace a lost retention ledger with a new one.

    Purges stay paused until then. The attestations of the lost ledger can't be
    restored; the new ledger, the audit log and later verifications report the loss.

    Raises `ConflictError` if the ledger is not damaged, or if the present ledger is not
    new.

    Attributes:
        reason: Recorded in ledger and audit log.
    """

    effect: ClassVar = Effect.RECOVERY
    route: ClassVar = Route(
        "POST",
        "/retention/ledger",
        example={"reason": "the disk with the ledger failed"},
    )

    reason: Why
