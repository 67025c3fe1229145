# SPDX-License-Identifier: MIT
"""
The one thread that writes a trail.

While a group is written and synced the next one gathers, so that one sync serves all
who wait. After a failure everybody who waits is told and appends are refused, until the
medium has healed and a record says so. The chain never goes back: a record that was
chained stays in memory until it is durable, whoever was told what meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Final

from hsm_core._internal.audit.chain import Chain
from hsm_core._internal.failpoints import failpoint
from hsm_core._internal.stores.trail.groups import Group, Ticket
from hsm_core._internal.stores.trail.medium import Cause, MediumError, Tail, TrailMedium
from hsm_core._internal.stores.trail.outage import Outage
from hsm_core._internal.stores.trail.reserve import Reserve
from hsm_core.errors import AuditUnavailableError
from hsm_core.protocols import AuditDraft, AuditHealth, Clock
from hsm_core.settings import AuditSync

__all__ = ["MAX_PENDING_BYTES", "Flusher"]

MAX_PENDING_BYTES: Final = 16 * 1024 * 1024
"""Records may wait to be written up to this size; then appends are refused."""

_BOUNDED_SECONDS: Final = 0.02
_BOUNDED_RECORDS: Final = 512
_RESERVE_SECONDS: Final = 1.0
_NEVER: Final = float("inf")


class Flusher:
    """
    Writes groups of records in the background.

    Args:
        lock: Held by whoever calls `check`, `enqueue` or extends the chain.

        chain: Where the trail ends; the flusher's own records go on it too.

        medium: Where records go.

        reserve: Room for the records that matter when the disk is full.

        clock: Gives the time of the flusher's own records.

        sync: When a ticket is done.

        timeout_seconds: How long the disk may take before appends are refused.
    """

    def __init__(
        self,
        lock: threading.Lock,
        chain: Chain,
        medium: TrailMedium,
        reserve: Reserve,
        *,
        clock: Clock,
        sync: AuditSync,
        timeout_seconds: float,
    ) -> None:
        self._lock = lock
        self._bell = threading.Lock()
        self._bell.acquire()
        self._chain = chain
        self._medium = medium
        self._reserve = reserve
        self._reserve_at = _NEVER if reserve.take() else time.monotonic()
        self._clock = clock
        self._strict = sync is AuditSync.STRICT
        self._timeout = timeout_seconds
        self._pending = self._new_group()
        self._undurable: list[Group] = []
        self._unsynced_records = 0
        self._sync_at = _NEVER
        self._busy_since: float | None = None
        self._idle = False
        self._closing = False
        self._outage: Outage | None = None
        self._last_outage: Outage | None = None
        self._failures = 0
        self._resumes = 0
        self._durable = self.written = chain.mark()
        self._thread = threading.Thread(
            target=self._run, name="hsm-audit-flusher", daemon=True
        )
        self._thread.start()

    def _new_group(self) -> Group:
        return Group(Ticket(self._timeout), Ticket(self._timeout))

    # What callers do; `check` and `enqueue` under the lock.

    @property
    def health(self) -> AuditHealth:
        """How the trail is."""
        state, cause, failures = "ok", "", self._failures
        outage = self._outage
        if outage is not None:
            state, cause = "failing", outage.cause.value
        elif self._hangs():
            state, cause, failures = "failing", Cause.HANGING.value, failures + 1
        elif self._closing:
            state = "failing"
        elif not self._reserve.held:
            state, cause = "reserve", Cause.FULL.value
        return AuditHealth(
            state=state, cause=cause, failures=failures, resumes=self._resumes
        )

    @property
    def failure(self) -> BaseException | None:
        """What the trail suffers from now, or did when the thread ended."""
        outage = self._outage
        return None if outage is None else outage.error

    def check(self, *, reserved: bool = False) -> None:
        """
        Refuse if an append can't succeed now.

        Args:
            reserved: It may use the reserve.

        Raises:
            AuditUnavailableError: Writing failed, hangs, lags too far behind, the disk
                is full, or the trail is closed.
        """
        outage = self._outage
        if outage is not None:
            raise AuditUnavailableError(outage.sentence) from outage.error
        if self._closing:
            raise AuditUnavailableError("The audit trail is closed.")
        if self._hangs():
            raise AuditUnavailableError("The audit trail is not written in time.")
        if self._pending.size > MAX_PENDING_BYTES:
            raise AuditUnavailableError("Too many records wait to be written.")
        if not (reserved or self._reserve.held):
            raise AuditUnavailableError(
                "The disk is full: the audit trail takes only records of recovery and "
                "administration."
            )

    def enqueue(self, lines: list[bytes], *, durable: bool) -> Ticket:
        """Hand lines over to the thread; `check` must have passed."""
        group = self._pending
        group.add(lines)
        self._ring()
        if durable or self._strict:
            group.must_sync = True
            return group.synced
        return group.written

    def close(self) -> bool:
        """Write and sync what waits, mark the end; return whether the thread ended."""
        with self._lock:
            self._closing = True
            self._ring()
        self._thread.join(self._timeout)
        return not self._thread.is_alive()

    def _ring(self) -> None:
        if self._idle:
            self._idle = False
            self._bell.release()

    def _hangs(self) -> bool:
        since = self._busy_since
        return since is not None and time.monotonic() - since > self._timeout

    # What the thread does.

    def _run(self) -> None:
        going = True
        while going:
            try:
                going = self._turn()
                if not going:
                    self._medium.finish(self.written)
            except BaseException as error:
                # Whatever it is, who waits is told, and nothing more is answered.
                going = self._recover(error)

    def _turn(self) -> bool:
        group = self._take()
        began = self._busy_since = time.monotonic()
        if group is not None:
            self._write(group)
        if self._sync_at <= time.monotonic():
            self._medium.sync(self._undurable[-1].mark)
            self._settle()
        if self._medium.due() <= time.monotonic():
            self._medium.tidy()
        if self._reserve_at <= time.monotonic():
            self._retake()
        self._rest(began)
        return group is not None or not self._closing

    def _take(self) -> Group | None:
        """Return the next group, or None when something else is due."""
        with self._lock:
            if self._pending.lines or self._closing:
                return self._swap()
            due = min(self._sync_at, self._medium.due(), self._reserve_at)
            self._idle = True
        self._sleep(due - time.monotonic())
        with self._lock:
            return self._swap()

    def _sleep(self, seconds: float) -> None:
        """Wait until the bell rings, which `_idle` asks for."""
        wait = -1 if seconds == _NEVER else max(seconds, 0)
        rung = self._bell.acquire(timeout=wait)
        with self._lock:
            self._idle = False
            if not rung:
                # It may have rung just as the wait ended, and must be silent again.
                self._bell.acquire(blocking=False)

    def _swap(self) -> Group | None:
        group = self._pending
        if not group.lines:
            return None
        group.mark = self._chain.mark()
        self._pending = self._new_group()
        return group

    def _write(self, group: Group) -> None:
        self._undurable.append(group)
        self._unsynced_records += len(group.lines)
        wanted = (
            group.must_sync
            or self._unsynced_records >= _BOUNDED_RECORDS
            or self._sync_at <= time.monotonic()
        )
        durable = self._medium.write(group.lines, group.mark, sync=wanted)
        self.written = group.mark
        group.written.complete()
        if durable:
            self._settle()
        elif wanted:
            self._sync_at = 0.0
        elif self._sync_at == _NEVER:
            self._sync_at = time.monotonic() + _BOUNDED_SECONDS

    def _settle(self) -> None:
        """Tell everybody that all that was written is durable."""
        self._durable = self.written
        synced, self._undurable = self._undurable, []
        self._unsynced_records, self._sync_at = 0, _NEVER
        for group in synced:
            group.synced.complete()

    def _rest(self, began: float) -> None:
        with self._lock:
            took = time.monotonic() - began
            self._busy_since = None
            if took <= self._timeout or self._closing:
                return
            # Appends were refused for a while, though nothing is lost.
            self._failures += 1
            self._resumes += 1
            since = self._clock.now() - int(took * 1_000_000)
            resume = Outage(Cause.HANGING, since).draft(self._chain.seq + 1)
            self._pending.add(self._extend([resume]))
            self._pending.must_sync = True

    def _extend(self, drafts: Sequence[AuditDraft]) -> list[bytes]:
        return self._chain.extend(drafts, self._clock.now())

    def _retake(self) -> None:
        taken = self._reserve.take()
        self._reserve_at = _NEVER if taken else time.monotonic() + _RESERVE_SECONDS

    # What the thread does after a failure.

    def _recover(self, error: BaseException) -> bool:
        """Tell who waits, then try until the medium heals; False when closing."""
        outage = self._fail(error)
        while self._pause(outage):
            try:
                self._heal(outage)
                self._resume(outage)
            except BaseException as again:
                outage.failed_again(again)
                continue
            with self._lock:
                self._outage = None
                self._last_outage = outage
                self._resumes += 1
            outage.ended()
            return True
        return False

    def _fail(self, error: BaseException) -> Outage:
        with self._lock:
            outage = Outage.of(error, self._clock.now(), self._last_outage)
            self._outage = outage
            self._failures += 1
            self._busy_since = None
            last = self._swap()
            if last is not None:
                self._undurable.append(last)
        for group in self._undurable:
            group.complete(error)
        failpoint("audit.outage")
        return outage

    def _pause(self, outage: Outage) -> bool:
        with self._lock:
            if self._closing:
                return False
            self._idle = True
        self._sleep(outage.next_pause())
        return not self._closing

    def _heal(self, outage: Outage) -> None:
        tail = self._tail()
        try:
            self._medium.heal(tail, outage.cause)
        except MediumError as error:
            if error.cause is not Cause.FULL or not self._reserve.give_up():
                raise
            self._reserve_at = time.monotonic() + _RESERVE_SECONDS
            self._medium.heal(tail, outage.cause)
        outage.rewrote(tail)
        self.written = tail.mark
        self._settle()

    def _tail(self) -> Tail:
        lines = [line for group in self._undurable for line in group.lines]
        mark = self._undurable[-1].mark if self._undurable else self._durable
        return Tail(lines, mark.seq + 1 - len(lines), mark)

    def _resume(self, outage: Outage) -> None:
        """Record the outage, durably, before anything else is appended."""
        group = self._new_group()
        with self._lock:
            group.add(self._extend([outage.draft(self._chain.seq + 1)]))
            group.mark = self._chain.mark()
        group.must_sync = True
        self._write(group)
        if self._undurable:
            self._medium.sync(group.mark)
            self._settle()
