# SPDX-License-Identifier: MIT
"""Retention of old material: windows, holds, purges."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from hsm_core.model import KeyId, KeyInfo, Record
from hsm_core.operations.base import Effect, Operation
from hsm_core.operations.names import Instant, KeyReference, VersionNumber, Why

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
    Retention in numbers; the whole of it is `RetentionStatus`.

    Attributes:
        enabled: Whether there is a scheduler.
        healthy: Whether nothing keeps it from its work: its policy's file and its
            ledger are well, and no purge waits for an approval of its own.
        queue: Materials that are due or wait for their purge.
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
    How the retention ledger is.

    Attributes:
        available: Whether the next purge could be written down.
        problem: Why it is not believed, or empty.
        log_id: 32 hex digits.
        head_seq: Its newest record, -1 if there is none.
        head_hash: Leaf hash of that, hex; to be written down elsewhere.
    """

    available: bool
    log_id: str
    head_seq: int
    head_hash: str
    problem: str = ""


class LedgerBegun(Record, frozen=True, kw_only=True):
    """
    A new retention ledger, and the lost one that it took the place of.

    Attributes:
        log_id: Of the new one, 32 hex digits.
        former_log_id: Of the lost one.
        former_head_seq: The newest record of that which is known to have been there.
        former_head_hash: Leaf hash of that, hex.
    """

    log_id: str
    former_log_id: str
    former_head_seq: int
    former_head_hash: str


class PurgeItem(Record, frozen=True, kw_only=True):
    """
    Old material that is due, or waits for its purge.

    Attributes:
        version: The newest version that has it.
        versions: All of them.
        state: ``due``; ``asked``, when people were asked; ``refused``, when they said
            no, or nothing, lately; ``scheduled``, during the grace period; ``ripe``,
            after it.
        due_at: When its window ended.
        window_days: Length of the window.
        rule: What the window comes from: ``default``, ``tag:…`` or ``override:…``.
        purge_at: When its grace period ends.
        approval_id: The approval that was asked for.
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
    How retention stands, as of the last sweep.

    Attributes:
        enabled: Whether there is a scheduler; it needs a policy file and a ledger.
        policy_sha256: Of the policy in force, hex; empty if there is none, and then
            nothing is purged.
        default_days: Window of what nothing else concerns; 0 if there is no policy.
        loaded_at: Since when that policy is in force.
        problem: What is wrong with the policy's file; the last good one stays in force.
        paused: Why no purge is done: empty, ``leap``, ``limit``, ``state``,
            ``approvals``, ``trail`` or ``ledger``.
        pause_approval_id: The approval that would let purges go on.
        ledger: How the ledger is; None if there is none.
        queue: Materials that are due or wait for their purge.
        scheduled_total: Purges scheduled since the HSM was opened.
        cancelled_total: Of those, how many were cancelled by what the scheduler found.
        completed_total: Purges done since the HSM was opened.
        failures: Keys that the last sweep could not handle; it comes back to them.
        swept_at: When the last sweep ended.
        items: The first 100 of the queue.
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


class ExtendRetention(Operation[KeyInfo], frozen=True, kw_only=True):
    """
    Keep the material of a version until an instant, whatever the retention policy says.

    It can't be made shorter again. Material that waits for its purge gets the state
    back that it had.

    Attributes:
        version: All versions with its material are kept with it.
        until: In the future, and later than what it was extended to before.
    """

    effect: ClassVar = Effect.MUTATION

    key_id: KeyReference
    version: VersionNumber
    until: Instant


class HoldKey(Operation[KeyInfo], frozen=True, kw_only=True):
    """
    Put a legal hold on a key: nothing of it is purged or destroyed until `ReleaseKey`.

    Material that waits for its purge gets the state back that it had.

    Attributes:
        reason: Shown with the key, and kept in the trail.
    """

    effect: ClassVar = Effect.MUTATION

    key_id: KeyReference
    reason: Why


class ReleaseKey(Operation[KeyInfo], frozen=True, kw_only=True):
    """
    End the hold on a key.

    Attributes:
        reason: Kept in the trail.
    """

    effect: ClassVar = Effect.MUTATION

    key_id: KeyReference
    reason: Why


class RetentionStatus(Operation[RetentionReport], frozen=True, kw_only=True):
    """Return how the retention of old key versions stands."""

    effect: ClassVar = Effect.READ


class BeginLedger(Operation[LedgerBegun], frozen=True, kw_only=True):
    """
    Let a new retention ledger take the place of one that is lost.

    Nothing is purged from the loss on until this is done. What the lost one attested is
    attested nowhere else; ledger, trail and every later verification say so.

    Raises `ConflictError` if nothing is known to be wrong with the ledger, or if the
    one that lies there is not new.

    Attributes:
        reason: Why; stands in ledger and trail.
    """

    effect: ClassVar = Effect.RECOVERY

    reason: Why
