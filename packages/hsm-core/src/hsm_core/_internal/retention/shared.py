# SPDX-License-Identifier: MIT
"""
Retention of a cluster: one node at a time runs it, and writes the ledger.

The node has a lease. It opens the ledger when it gets the lease, goes on with the
purges that the last one left, and closes the ledger before it gives the lease back. A
node that was fenced can't write to the ledger any more.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from hsm_core._internal.audit.reasons import damaged_ledger
from hsm_core._internal.lib.concurrency import BackgroundWorker
from hsm_core._internal.pipeline.authorisation import ApprovalDesk
from hsm_core._internal.retention.service import (
    FIRST_SECONDS,
    Execute,
    LedgerFile,
    Retention,
    RetentionSlot,
)
from hsm_core.errors import AuditTamperedError, ConflictError
from hsm_core.operations import RetentionReport
from hsm_core.protocols import AuditHead, AuditLog

if TYPE_CHECKING:
    from hsm_core._internal.cluster.jobs import JobLeases

JOB: Final = "retention"
"""Name of the lease."""

_RETRY_SECONDS: Final = 10.0


class SharedRetentionSlot(RetentionSlot):
    """
    Holds the `Retention` of a cluster while this node has its lease.

    Args:
        leases: Leases of the cluster.

        open_ledger: Opens the ledger, which only the node with the lease may.

        stored_head: Returns the end of the ledger in the database.

    Attributes:
        build_over: Makes a retention over an open ledger.
    """

    def __init__(
        self,
        leases: JobLeases,
        open_ledger: Callable[[], AuditLog],
        stored_head: Callable[[], AuditHead | None],
    ) -> None:
        super().__init__(LedgerFile(None))
        self._leases = leases
        self._open_ledger = open_ledger
        self._stored_head = stored_head
        self._told: Callable[[str], None] = lambda _: None
        self._alarm = ""
        self._holder = ""
        self._stepping = threading.Lock()
        self._make: Callable[[AuditLog], Retention] | None = None
        self.build_over: Callable[[AuditLog, Execute, ApprovalDesk], Retention]

    def begin(
        self,
        execute: Execute,
        desk: ApprovalDesk,
        new_worker: Callable[[], BackgroundWorker] = BackgroundWorker,
    ) -> None:
        """Take part from now on."""
        self._make = lambda log: self.build_over(log, execute, desk)
        self._worker = new_worker()
        self._worker.every(_RETRY_SECONDS, self.step, first=FIRST_SECONDS)
        self._worker.start()

    def step(self) -> float:
        """
        Do one step of a sweep if this node has the lease; return when to come again.

        Raises:
            HSMError: A part is unavailable; to be tried again.
        """
        with self._stepping:
            return self._step()

    def _step(self) -> float:
        is_mine = self._leases.holds(JOB, self._leave)
        self._holder = self._leases.holder(JOB)
        if not is_mine:
            self._leave()
            self._ledger = LedgerFile(None)
            self._tell("")
            return _RETRY_SECONDS
        if self._is_outdated():
            self._leave()
        if self.retention is None:
            self._take()
        if self.retention is None:
            return _RETRY_SECONDS
        return min(self.retention.step(), _RETRY_SECONDS)

    def _is_outdated(self) -> bool:
        """Return whether the ledger is not as this node has left it."""
        found = self.retention
        if found is None or found.is_sweeping:
            return False
        try:
            return self._stored_head() != found.ledger.log.durable_head()
        except AuditTamperedError:
            return True

    def _take(self) -> None:
        try:
            log = self._open_ledger()
        except AuditTamperedError as error:
            self._ledger = LedgerFile(None, damaged_ledger(error))
            self._tell(self._ledger.problem)
            return
        self._ledger = LedgerFile(None)
        assert self._make is not None  # noqa: S101 (for the type checker)
        self.retention = self._make(log)
        self.retention.on_change = self._tell
        self._tell("")

    def _leave(self) -> None:
        found, self.retention = self.retention, None
        if found is not None:
            found.close()

    def on_change(self, told: Callable[[str], None]) -> None:
        """Register a callback for paused purges; see `Retention.on_change`."""
        self._told = told
        if self._alarm:
            told(self._alarm)

    def _tell(self, alarm: str) -> None:
        """Tell what holds up purges, once, whichever `Retention` finds it."""
        if alarm != self._alarm:
            self._alarm = alarm
            self._told(alarm)

    @property
    def _is_elsewhere(self) -> bool:
        is_damaged = self._ledger is not None and self._ledger.problem
        return self.retention is None and not is_damaged

    def _sound(self) -> Retention:
        if self._is_elsewhere:
            raise ConflictError(
                f"Node {self._holder} runs retention. Send the request to it."
            )
        return super()._sound()

    def status(self) -> RetentionReport:
        """Return the status of retention; only of the node where it is not here."""
        if self._is_elsewhere:
            return RetentionReport(enabled=True, node=self._holder)
        return super().status()
