# SPDX-License-Identifier: MIT
"""HSM status."""

from __future__ import annotations

from datetime import datetime
from typing import ClassVar

from hsm_core.model import Record
from hsm_core.operations.algorithms import AlgorithmStatus
from hsm_core.operations.approvals import ApprovalStatus
from hsm_core.operations.audit import AuditStatus
from hsm_core.operations.base import Effect, Operation
from hsm_core.operations.policy import PolicyStatus
from hsm_core.operations.retention import RetentionCounts
from hsm_core.operations.stores import StoreStatus

__all__ = ["HSMStatus", "KeyCacheStatus", "ScheduleStatus", "Status"]


class ScheduleStatus(Record, frozen=True, kw_only=True):
    """
    Result of the last scheduler run over all keys.

    Attributes:
        rotating: Keys with automatic rotation.
        rotations_due: Keys whose rotation is overdue: an approval is missing, a staged
            version exists, or the rotation failed.
        destructions: Keys with a scheduled destruction.
        destructions_due: Keys whose destruction is overdue.
        held: Overdue keys that wait because of a clock jump: for the skipped time, or
            until `DestroyKey` is sent again.
        left_out_seconds: Wall-clock seconds excluded because of clock jumps of more
            than a day within a process, or more than a week between two processes.
    """

    rotating: int = 0
    rotations_due: int = 0
    destructions: int = 0
    destructions_due: int = 0
    held: int = 0
    left_out_seconds: int = 0


class KeyCacheStatus(Record, frozen=True, kw_only=True):
    """
    Cache of unsealed private and secret keys, since the HSM was opened.

    Attributes:
        hits: Number of cache hits.
        misses: Number of keys read and unsealed.
        stores: Number of keys cached.
    """

    hits: int = 0
    misses: int = 0
    stores: int = 0


class HSMStatus(Record, frozen=True, kw_only=True):
    """
    Health of the HSM.

    Attributes:
        state: ``operational``, ``degraded`` (see the other fields), ``locked`` or
            ``error``.
        keys: Number of keys that are not destroyed.
        tampered_keys: Number of keys that failed their integrity check.
    """

    state: str
    version: str
    started_at: datetime
    uptime_seconds: int
    keys: int
    tampered_keys: int
    audit: AuditStatus
    algorithms: tuple[AlgorithmStatus, ...]
    store: StoreStatus
    schedules: ScheduleStatus = ScheduleStatus()
    policy: PolicyStatus = PolicyStatus()
    approvals: ApprovalStatus = ApprovalStatus()
    retention: RetentionCounts = RetentionCounts()
    key_cache: KeyCacheStatus = KeyCacheStatus()


class Status(Operation[HSMStatus], frozen=True, kw_only=True):
    """Return the health of the HSM."""

    effect: ClassVar = Effect.READ
    while_locked: ClassVar = True
