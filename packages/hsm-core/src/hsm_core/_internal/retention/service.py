# SPDX-License-Identifier: MIT
"""Retention service of an open HSM: sweeps, ledger and status."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final, TypeAlias

import msgspec

from hsm_core._internal.keyring.dependencies import Dependencies
from hsm_core._internal.lib.concurrency import BackgroundWorker
from hsm_core._internal.pipeline.authorisation import ApprovalDesk
from hsm_core._internal.retention.decisions import Pauses, PurgeDecisions
from hsm_core._internal.retention.ledger import RetentionLedger, TrailCheck
from hsm_core._internal.retention.purger import Purger
from hsm_core._internal.retention.state import (
    LedgerAnchor,
    RetentionPolicyFile,
    StateFile,
)
from hsm_core._internal.retention.sweeper import Sweeper, Tally, Totals
from hsm_core._internal.time.clock import instant
from hsm_core.errors import (
    AuditTamperedError,
    AuditUnavailableError,
    ConflictError,
    LedgerTamperedError,
)
from hsm_core.model import Caller, Phase
from hsm_core.operations import LedgerBegun, LedgerStatus, RetentionReport
from hsm_core.protocols import AuditDraft, AuditLog, Request
from hsm_core.settings import KeyStoreKind

_SLICE_SECONDS: Final = 0.005
"""Duration of one step; other threads wait for the interpreter that long."""

_SHARE: Final = 0.25
"""Share of one processor's time that a sweep may take."""

_SOON_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 60.0
"""Seconds between reads of the policy file while there is no policy."""

Execute: TypeAlias = Callable[[Request], Any]
"""The pipeline."""

FIRST_SECONDS: Final = 5.0
"""Seconds from the start to the first sweep."""

_BETWEEN_SECONDS: Final = 60.0
"""Seconds before a failed sweep restarts."""

_METHODS: Final[dict[str, str]] = {
    KeyStoreKind.FILESYSTEM: "overwritten-and-removed",
    KeyStoreKind.MEMORY: "forgotten",
    KeyStoreKind.POSTGRESQL: "row-deleted-unerased",
    KeyStoreKind.SQLITE: "row-deleted",
}


class Retention:
    """
    Purges old material, step by step, under a policy.

    A key store and its ledger have one, because one process at a time has them open;
    sweeps run one after the other.

    Args:
        ground: Keys, audit log and time. The settings name the policy and the delays.

        ledger: Log of the ledger; closed at the end.

        hmac_key: Key of trail and ledger.

        desk: Opens approval requests.

        execute: The pipeline.

        method: Removal method of sealed blobs, for the ledger.

    Attributes:
        on_change: Called with each new reason for paused purges, or an empty text when
            they resume.
    """

    def __init__(
        self,
        ground: Dependencies,
        *,
        ledger: AuditLog,
        hmac_key: bytes,
        desk: ApprovalDesk,
        execute: Callable[[Request], Any],
        method: str,
    ) -> None:
        settings, inventory = ground.settings, ground.inventory
        if settings.retention_config is None:
            raise AssertionError("retention needs a policy's file")
        self._interval = float(settings.retention_interval_seconds)
        self._ground = ground
        self._file = RetentionPolicyFile(settings.retention_config, ground.clock)
        self._state = StateFile(inventory.store, inventory.ring)
        self.ledger = RetentionLedger(
            ledger, ground.audit, hmac_key, self._remember, self._state.state.anchor
        )
        self._totals = Totals()
        self._sweeper = self._sweeper_with(desk, execute, method)
        self._pauses = self._sweeper.pauses
        self._told = ""
        self._stepping = threading.RLock()
        self._is_wanted = False
        self._alarm = ""
        self.on_change: Callable[[str], None] = lambda _: None
        self._walk: Iterator[None] | None = None
        self._tally = Tally()
        self._done = Tally()
        self._paused = self._pause_approval = ""
        self._swept_at = 0

    def _sweeper_with(
        self, desk: ApprovalDesk, execute: Callable[[Request], Any], method: str
    ) -> Sweeper:
        ground, settings = self._ground, self._ground.settings
        inventory = ground.inventory
        guard = ground.clock_guard
        consents = PurgeDecisions(
            desk,
            self._state,
            settings.retention_grace_seconds,
            settings.retention_interval_seconds,
        )
        return Sweeper(
            inventory=inventory,
            execute=execute,
            consents=consents,
            pauses=Pauses(self._state, consents, execute, guard),
            purger=Purger(inventory, self.ledger, execute, ground.entropy, method),
            trail=TrailCheck(ground.audit, ground.verify, self.ledger),
            time=guard,
            totals=self._totals,
            grace_seconds=settings.retention_grace_seconds,
            most=settings.retention_max_purges,
        )

    def _remember(self, anchor: LedgerAnchor) -> None:
        self._state.put(msgspec.structs.replace(self._state.state, anchor=anchor))

    def step(self) -> float:
        """
        Do one step of a sweep, and return the seconds until the next.

        Raises:
            HSMError: A part is unavailable; the sweep restarts.
        """
        with self._stepping:
            try:
                return self._step()
            finally:
                self._tell_alarm()

    def _tell_alarm(self) -> None:
        paused = f"Purges are paused: {self._paused}." if self._paused else ""
        found = (self._file.problem, self.ledger.problem, paused)
        alarm = " ".join(filter(None, found))
        if alarm != self._alarm:
            self._alarm = alarm
            self.on_change(alarm)

    def _step(self) -> float:
        began = time.perf_counter()
        if self._walk is None:
            waiting = self._begin()
            if waiting is not None:
                return waiting
        try:
            for _ in self._walk or ():
                spent = time.perf_counter() - began
                if spent >= _SLICE_SECONDS:
                    return spent / _SHARE - spent
        except AuditTamperedError:
            self._pauses.note("trail")
        except LedgerTamperedError:
            self._pauses.note("ledger")
        except BaseException:
            self._walk = None
            raise
        self._publish()
        self._walk = None
        return _SOON_SECONDS if self._is_wanted else self._interval

    def sweep(self) -> None:
        """
        Run one complete sweep now, if there is a policy.

        Raises:
            HSMError: As `step`.
        """
        with self._stepping:
            # A sweep in progress may have passed what changed since it began.
            self._abandon()
            self._step()
            while self._walk is not None:
                self._step()

    def _abandon(self) -> None:
        self._walk = None

    @property
    def is_sweeping(self) -> bool:
        """Whether a sweep has begun and not ended."""
        return self._walk is not None

    def want(self) -> None:
        """Start a sweep now, or right after the running one."""
        self._is_wanted = True

    def _begin(self) -> float | None:
        """Begin a sweep, or return the seconds until the next attempt."""
        self._is_wanted = False
        if self._file.look():
            return _SOON_SECONDS
        policy = self._file.policy
        if policy is None:
            return min(self._interval, _LOOK_SECONDS)
        if self._ground.inventory.lock.reason:
            return min(self._interval, _LOOK_SECONDS)
        if self._told != policy.sha256:
            self._tell(policy.sha256, policy.default_days)
        self._pauses.begin()
        self._tally = Tally()
        self._walk = self._sweeper.sweep(policy, self._tally)
        return None

    def _tell(self, sha256: str, default_days: int) -> None:
        """Record a policy before it takes effect."""
        draft = AuditDraft(
            phase=Phase.SINGLE,
            kind="system.retention-policy",
            parameters={"sha256": sha256, "default_days": default_days},
        )
        self._ground.audit.append([draft], durable=True, reserved=True).wait()
        self._told = sha256

    def _publish(self) -> None:
        self._done = self._tally
        self._paused = self._pauses.cause
        self._pause_approval = self._pauses.approval_id
        self._swept_at = self._ground.clock.now()

    def status(self) -> RetentionReport:
        """Return the status of retention, as of the last sweep."""
        policy, done = self._file.policy, self._done
        log = self.ledger.log
        head = log.head()
        return RetentionReport(
            enabled=True,
            policy_sha256=policy.sha256 if policy else "",
            default_days=policy.default_days if policy else 0,
            loaded_at=instant(self._file.loaded_at) if policy else None,
            problem=self._file.problem,
            paused=self._paused,
            pause_approval_id=self._pause_approval,
            ledger=LedgerStatus(
                available=log.available and not self.ledger.problem,
                log_id=log.log_id,
                head_seq=head.seq,
                head_hash=head.leaf_hash,
                problem=self.ledger.problem,
            ),
            queue=done.queue,
            scheduled_total=self._totals.scheduled,
            cancelled_total=self._totals.cancelled,
            completed_total=self._totals.completed,
            failures=done.failures,
            swept_at=instant(self._swept_at) if self._swept_at else None,
            items=tuple(done.items),
        )

    def close(self) -> None:
        """Close the ledger; no sweep may be running."""
        self._walk = None
        with suppress(AuditUnavailableError):
            self.ledger.close()


def removal_method(key_store: str) -> str:
    """
    Return the removal method of a store's sealed blobs, as named in the ledger.

    ``overwritten-and-removed``: its file was overwritten once in place, synced, and
    removed. ``row-deleted``: its row was, with the database's ``secure_delete``.
    ``row-deleted-unerased``: its row was, by a database that erases it later.
    ``forgotten``: it was in memory only. ``object-deleted``: a vault was told to.
    """
    scheme = key_store.partition(":")[0]
    return _METHODS.get(scheme, "object-deleted")


class LedgerFile(msgspec.Struct, frozen=True):
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
        self._worker: BackgroundWorker | None = None
        self.build: Callable[[Execute, ApprovalDesk], Retention] | None = None
        self.retention: Retention | None = None

    def begin(
        self,
        execute: Execute,
        desk: ApprovalDesk,
        new_worker: Callable[[], BackgroundWorker] = BackgroundWorker,
    ) -> None:
        """Build and start retention, if there is one."""
        if self.build is None:
            return
        self.retention = self.build(execute, desk)
        self._worker = new_worker()
        self._worker.every(_BETWEEN_SECONDS, self.retention.step, first=FIRST_SECONDS)
        self._worker.start()

    def stop(self, timeout_seconds: float) -> None:
        """Wait for the running step, and close the ledger."""
        if self._worker is not None:
            self._worker.stop(timeout_seconds)
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
        running = self.retention
        if running is not None and self._worker is not None:
            running.want()
            self._worker.hurry()

    def begin_ledger(self, caller: Caller, reason: str) -> LedgerBegun:
        """
        Replace a lost ledger by a new one; see `RetentionLedger.begin_anew`.

        Raises:
            ConflictError: See `check_ledger_lost`.
            HSMError: See there.
        """
        ledger = self._sound().ledger
        with ledger.purging:
            done = ledger.begin_anew(caller, reason)
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
        running = self.retention
        if running is not None:
            return running
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
        running = self.retention
        if running is not None:
            return running.status()
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
