# SPDX-License-Identifier: MIT
"""The health of the HSM as a whole."""

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
    What the schedulers found when they last looked at every key.

    Attributes:
        rotating: Keys that the HSM rotates by itself.
        rotations_due: Those of them that are due, and could not be rotated yet: an
            approval is missing, a staged version waits, or it failed.
        destructions: Keys that wait for their destruction.
        destructions_due: Those of them whose time is over, and that are still there.
        held: Those of these that wait because the clock leapt: for as long as it leapt,
            or until `DestroyKey` is sent again.
        left_out_seconds: Wall time that does not count because the clock leapt over it,
            beyond a day in the life of a process, or a week between two of these.
    """

    rotating: int = 0
    rotations_due: int = 0
    destructions: int = 0
    destructions_due: int = 0
    held: int = 0
    left_out_seconds: int = 0


class KeyCacheStatus(Record, frozen=True, kw_only=True):
    """
    The private and secret keys that are kept open in memory, since the HSM was opened.

    Attributes:
        hits: How often a key was there when it was needed.
        misses: How often it had to be read and unsealed.
        stores: How often one was put there.
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
        tampered_keys: Number of keys whose stored form was changed by others.
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
