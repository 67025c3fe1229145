# SPDX-License-Identifier: MIT
"""
Periodic maintenance: retention and self-healing of audit log and approvals, self-tests.

It has a thread of its own, because a long prune must not keep a key store from healing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from hsm_core._internal.approvals.maintenance import (
    ApprovalMaintenance,
    prune_approvals,
)
from hsm_core._internal.approvals.repository import ApprovalRegister
from hsm_core._internal.crypto.registry import CryptoRegistry
from hsm_core._internal.lib.concurrency import BackgroundWorker, JobGuard, unguarded
from hsm_core.algorithms import Algorithm
from hsm_core.errors import HSMError
from hsm_core.model import PruneDetail
from hsm_core.protocols import AuditLog, Clock
from hsm_core.settings import Settings

_DAY: Final = 24 * 3600 * 1_000_000
_HEALING_SECONDS: Final = 1.0
_EXPIRY_SECONDS: Final = 60.0
_FIRST_SECONDS: Final = 5.0
"""Delay of the first pruning after the start, in seconds."""


def prune_trail(
    audit: AuditLog,
    clock: Clock,
    days: int,
    policy: str = "",
    *,
    before: Callable[[], None] = lambda: None,
) -> PruneDetail | None:
    """
    Remove the records of an audit log that are older than so many days.

    Args:
        audit: The audit log.

        clock: Says what time it is now.

        days: Age at which a record goes; 0 keeps them all.

        policy: Stands in the record of the prune; by default the rule in words.

        before: Called before records are removed.

    Returns:
        What was recorded; None if nothing was removed.

    Raises:
        AuditTamperedError: A record that would be removed is bad; none was.
        AuditUnavailableError: The audit log can't be read or written, or a removal
            failed, which the next time finishes.
    """
    if not days:
        return None
    end = audit.prunable(clock.now() - days * _DAY)
    if end <= audit.first_seq:
        return None
    before()
    return audit.prune(end, policy or f"records older than {days} days")


class PeriodicMaintenance:
    """
    Periodic maintenance; starts immediately.

    Stop it before closing the audit log and the approvals.

    Args:
        settings: How long records and approvals are kept.

        audit: The audit log.

        register: The approvals, whose store is closed at the end.

        care: Maintains them.

        clock: Time.

        worker: Does the work from time to time; one of its own by default.

        job_guard: Keeps what concerns all approvals to one node of a cluster.
    """

    def __init__(
        self,
        settings: Settings,
        audit: AuditLog,
        register: ApprovalRegister,
        care: ApprovalMaintenance,
        clock: Clock,
        worker: BackgroundWorker | None = None,
        job_guard: JobGuard = unguarded,
    ) -> None:
        self._audit = audit
        self._register = register
        self._care = care
        self._clock = clock
        self._trail_days = settings.trail_days
        self._approval_days = settings.approval_days
        self._pruning_problem = ""
        self._on_pruning_change: Callable[[str], None] = lambda _: None
        self._worker = worker or BackgroundWorker()
        every = self._worker.every
        if self._trail_days:
            seconds = settings.audit_retention_interval_seconds
            every(seconds, self.prune_trail, first=_FIRST_SECONDS)
        every(_HEALING_SECONDS, self.heal_approvals)
        expire = job_guard("approval-expiry", care.expire)
        every(_EXPIRY_SECONDS, expire, first=_EXPIRY_SECONDS)
        seconds = settings.scrub_interval_seconds
        compare = job_guard("approval-comparison", self.compare_approvals)
        every(seconds, compare, first=seconds)
        seconds = settings.approval_retention_interval_seconds
        if self._approval_days:
            prune = job_guard("approval-retention", self.prune_approvals)
            every(seconds, prune, first=_FIRST_SECONDS)
        self._worker.start()

    def prune_trail(self) -> None:
        """Remove the records that are too old; tell when that fails, and no more."""
        problem = ""
        try:
            prune_trail(
                self._audit, self._clock, self._trail_days, before=self._care.anchor
            )
        except HSMError as error:
            problem = str(error)
        if problem != self._pruning_problem:
            self._pruning_problem = problem
            self._on_pruning_change(problem)

    def on_pruning_change(self, told: Callable[[str], None]) -> None:
        """Register a callback; see `OpenHSM.on_pruning_change`."""
        self._on_pruning_change = told
        if self._pruning_problem:
            told(self._pruning_problem)

    def prune_approvals(self) -> None:
        """Remove the approvals that came to an end too long ago."""
        prune_approvals(self._register, self._approval_days)

    def heal_approvals(self) -> None:
        """Open their store again if a write to it has failed; write what is owed."""
        self._care.heal()

    def compare_approvals(self) -> None:
        """Look for approvals that are not as they were written."""
        self._care.compare()

    def stop(self, timeout_seconds: float) -> None:
        """Begin nothing any more, wait for what runs, and close the approvals."""
        self._worker.stop(timeout_seconds)
        self._register.store.close()


_FIRST_TEST_SECONDS: Final = 2.0
"""Delay of the first test after the start, in seconds."""
_TEST_PAUSE_SECONDS: Final = 0.05
_NEVER_SECONDS: Final = 1e9


class EarlySelfTests:
    """
    Known-answer tests of the algorithms that were not used yet.

    Each algorithm is tested before its first use in any case. These tests find a fault
    before anybody needs the algorithm, so that status and audit log show it.

    Args:
        crypto: The algorithms.

        record: Records disabled algorithms; may raise `AuditUnavailableError`.
    """

    def __init__(
        self,
        crypto: CryptoRegistry,
        record: Callable[[Sequence[Algorithm]], None],
    ) -> None:
        self._crypto = crypto
        self._record = record
        self._left = deque(Algorithm)
        self._recorded: set[Algorithm] = set()

    def begin(self, worker: BackgroundWorker) -> None:
        """Run soon, and once."""
        worker.every(_FIRST_TEST_SECONDS, self.step, first=_FIRST_TEST_SECONDS)

    def step(self) -> float:
        """
        Test one algorithm; return the seconds until the next step.

        Raises:
            UnavailableError: It can't be tested now; the next step tries again.
            AuditUnavailableError: A failure can't be recorded now; the same.
        """
        if self._left:
            self._crypto.test_early(self._left[0])
            self._left.popleft()
        self._record_disabled()
        return _TEST_PAUSE_SECONDS if self._left else _NEVER_SECONDS

    def _record_disabled(self) -> None:
        disabled = [
            algorithm
            for algorithm in self._crypto.stopped()
            if algorithm not in self._recorded
        ]
        if disabled:
            self._record(disabled)
            self._recorded.update(disabled)
