# SPDX-License-Identifier: MIT
"""Retention slot: the optional retention service of an open HSM, and its thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from hsm_core._internal.lib.worker import BackgroundWorker
from hsm_core._internal.retention.requests import PurgeRequests
from hsm_core._internal.retention.service import Retention
from hsm_core.errors import ConflictError
from hsm_core.model import Caller
from hsm_core.operations import LedgerBegun, LedgerStatus, RetentionReport
from hsm_core.protocols import AuditLog, Request
from hsm_core.settings import KeyStoreKind

Execute: TypeAlias = Callable[[Request], Any]
"""The pipeline."""

_FIRST_SECONDS: Final = 5.0
"""Seconds from the start to the first sweep."""

_BETWEEN_SECONDS: Final = 60.0
"""Seconds before a failed sweep restarts."""

_METHODS: Final[dict[str, str]] = {
    KeyStoreKind.FILESYSTEM: "overwritten-and-removed",
    KeyStoreKind.MEMORY: "forgotten",
    KeyStoreKind.SQLITE: "row-deleted",
}


def removal_method(key_store: str) -> str:
    """
    Return the removal method of a store's sealed blobs, as named in the ledger.

    ``overwritten-and-removed``: its file was overwritten once in place, synced, and
    removed. ``row-deleted``: its row was, with the database's ``secure_delete``.
    ``forgotten``: it was in memory only. ``object-deleted``: a vault was told to.
    """
    scheme = key_store.partition(":")[0]
    return _METHODS.get(scheme, "object-deleted")


@dataclass(frozen=True, slots=True)
class LedgerFile:
    """
    Opened retention ledger.

    Attributes:
        log: None if it is damaged; nothing is purged then, and the HSM works otherwise.
        problem: Its fault, or empty.
    """

    log: AuditLog | None
    problem: str = ""


class RetentionSlot:
    """
    Holds a `Retention` and runs it in its own thread.

    Args:
        ledger: None without retention.

    Attributes:
        build: Makes it, over the pipeline; None where there is none.
        retention: None before `begin`, and where there is none.
    """

    def __init__(self, ledger: LedgerFile | None) -> None:
        self._ledger = ledger
        self._caretaker: BackgroundWorker | None = None
        self.build: Callable[[Execute, PurgeRequests], Retention] | None = None
        self.retention: Retention | None = None

    def begin(
        self,
        execute: Execute,
        desk: PurgeRequests,
        new_caretaker: Callable[[], BackgroundWorker] = BackgroundWorker,
    ) -> None:
        """Build and start retention, if there is one."""
        if self.build is None:
            return
        self.retention = self.build(execute, desk)
        self._caretaker = new_caretaker()
        self._caretaker.every(
            _BETWEEN_SECONDS, self.retention.step, first=_FIRST_SECONDS
        )
        self._caretaker.start()

    def stop(self, timeout_seconds: float) -> None:
        """Wait for the running step, and close the ledger."""
        if self._caretaker is not None:
            self._caretaker.stop(timeout_seconds)
        if self.retention is not None:
            self.retention.close()

    def on_change(self, told: Callable[[str], None]) -> None:
        """Register a callback for paused purges; see `Retention.on_change`."""
        if self.retention is not None:
            self.retention.on_change = told
        elif self._ledger is not None and self._ledger.problem:
            told(self._ledger.problem)

    def hurry(self) -> None:
        """Read the policy file now, and sweep."""
        if self.retention is not None and self._caretaker is not None:
            self.retention.want()
            self._caretaker.hurry()

    def begin_ledger(self, caller: Caller, reason: str) -> LedgerBegun:
        """
        Replace a lost ledger by a new one; see `Retention.begin_ledger`.

        Raises:
            ConflictError: See `check_ledger_lost`.
            HSMError: See there.
        """
        done = self._sound().begin_ledger(caller, reason)
        self.hurry()
        return done

    def check_ledger_lost(self) -> None:
        """
        Check that a lost ledger was replaced by a new one.

        Raises:
            ConflictError: There is no retention, or nothing is known to be wrong with
                its ledger, or what lies there is not new.
        """
        self._sound().ledger.check_lost()

    def _sound(self) -> Retention:
        if self.retention is not None:
            return self.retention
        if self._ledger is None:
            raise ConflictError(
                "Retention is not configured, so there is no retention ledger."
            )
        raise ConflictError(
            f"{self._ledger.problem} Move its files away and restart to create a "
            "new one."
        )

    def status(self) -> RetentionReport:
        """Return the status of retention."""
        if self.retention is not None:
            return self.retention.status()
        if self._ledger is None or not self._ledger.problem:
            return RetentionReport(enabled=False)
        bad = LedgerStatus(
            available=False,
            log_id="",
            head_seq=-1,
            head_hash="",
            problem=self._ledger.problem,
        )
        return RetentionReport(enabled=True, paused="ledger", ledger=bad)
