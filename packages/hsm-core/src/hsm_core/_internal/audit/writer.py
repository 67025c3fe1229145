# SPDX-License-Identifier: MIT
"""
Writer of an audit log: the one thread that writes and syncs it.

While a group is written and synced the next one gathers, so that one sync serves all
who wait. After a failure all waiting callers get an error and appends are refused,
until the medium has healed and a record says so. The chain never goes back: records
stay in memory until they are durable, so that after a failure they are written again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Sequence
from typing import Final

from hsm_core._internal.audit.chain import Chain
from hsm_core._internal.audit.head_mark import HeadMark
from hsm_core._internal.audit.medium import (
    AuditMedium,
    Cause,
    Group,
    MediumError,
    Reserve,
    SyncClock,
    Tail,
    Ticket,
)
from hsm_core._internal.lib.failpoints import failpoint
from hsm_core.errors import AuditUnavailableError
from hsm_core.model import Phase, ResumeDetail
from hsm_core.protocols import AuditDraft, AuditHealth, Clock
from hsm_core.settings import AuditSync

_BOUNDED_SECONDS: Final = 0.02
_BOUNDED_RECORDS: Final = 512
_LAZY_SECONDS: Final = 1.0

_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 1.0
_CALM_SECONDS: Final = 10.0
"""An outage so soon after another goes on with its pauses."""

MAX_PENDING_BYTES: Final = 16 * 1024 * 1024
"""Records may wait to be written up to this size; then appends are refused."""

_RESERVE_SECONDS: Final = 1.0
_NEVER: Final = float("inf")


class Backlog:
    """
    Writes groups on a medium, and knows what is durable. For one thread.

    Args:
        medium: Where records go.

        mark: Where the log ends; all of it is durable.

    Attributes:
        written: The end of what was written, and may be read.
        durable: The end of what is durable.
        sync_at: Instant of ``time.monotonic()`` at which a sync is due, or inf.
        syncs: How long syncs took, or writes that were syncs too.
    """

    def __init__(self, medium: AuditMedium, mark: HeadMark) -> None:
        self._medium = medium
        self._groups: list[Group] = []
        self._records = 0
        self.written = mark
        self.durable = mark
        self.sync_at = _NEVER
        self.syncs = SyncClock()

    def write(self, group: Group) -> None:
        """
        Write a group; sync it too if that is one step, else note when that is due.

        Raises:
            MediumError: It may have been written in part, or wholly.
        """
        self._groups.append(group)
        self._records += len(group.lines)
        wanted = (
            group.must_sync
            or self._records >= _BOUNDED_RECORDS
            or self.sync_at <= time.monotonic()
        )
        began = time.monotonic()
        durable = self._medium.write(group.lines, group.mark, sync=wanted)
        self.written = group.mark
        group.written.complete()
        if durable:
            self.syncs.count(time.monotonic() - began)
            self._settle()
        elif wanted:
            self.sync_at = 0.0
        else:
            pause = _LAZY_SECONDS if group.is_lazy else _BOUNDED_SECONDS
            self.sync_at = min(self.sync_at, time.monotonic() + pause)

    def sync(self) -> None:
        """
        Make all that was written durable, if a sync is due, and tell who waits.

        Raises:
            MediumError: It may not be.
        """
        if self.sync_at <= time.monotonic():
            began = time.monotonic()
            self._medium.sync(self.written)
            self.syncs.count(time.monotonic() - began)
            self._settle()

    def fail(self, error: BaseException, waiting: Iterable[Group]) -> None:
        """Tell all who wait that it failed; what was chained stays, *waiting* too."""
        self._groups += waiting
        for group in self._groups:
            group.complete(error)

    def tail(self) -> Tail:
        """Return what is not known to be durable."""
        lines = [line for group in self._groups for line in group.lines]
        mark = self._groups[-1].mark if self._groups else self.durable
        return Tail(lines, mark.seq + 1 - len(lines), mark)

    def heal(self, tail: Tail, cause: Cause) -> None:
        """
        Let the medium make the tail durable.

        Raises:
            MediumError: It still can't be.
        """
        self._medium.heal(tail, cause)
        self.written = tail.mark
        self._settle()

    def _settle(self) -> None:
        self.durable = self.written
        durable, self._groups = self._groups, []
        self._records, self.sync_at = 0, _NEVER
        for group in durable:
            group.synced.complete()


class Outage:
    """
    One outage.

    Args:
        cause: What the log suffers from.

        failed_at: Microseconds since 1970.

        error: What was raised.

    Attributes:
        cause: That of the newest failure.
        error: The newest failure.
    """

    def __init__(
        self, cause: Cause, failed_at: int, error: BaseException | None = None
    ) -> None:
        self._first_cause = self.cause = cause
        self._failed_at = failed_at
        self.error = error
        self._attempts = 0
        self._pause = _FIRST_PAUSE
        self._ended_at = 0.0
        self._rewritten_from: int | None = None

    @classmethod
    def of(cls, error: BaseException, now: int, before: Outage | None) -> Outage:
        """Return the outage that *error* begins, *before* being the last one."""
        outage = cls(_cause_of(error), now, error)
        if before is not None:
            outage._pause = before.pause_after()
        return outage

    @property
    def sentence(self) -> str:
        """Message for callers."""
        return self.cause.sentence

    def next_pause(self) -> float:
        """Return for how many seconds to wait before the next attempt."""
        pause = self._pause
        self._pause = min(2 * pause, _LONGEST_PAUSE)
        self._attempts += 1
        return pause

    def pause_after(self) -> float:
        """Return the first pause of an outage that begins now."""
        is_calm = time.monotonic() - self._ended_at >= _CALM_SECONDS
        return _FIRST_PAUSE if is_calm else self._pause

    def failed_again(self, error: BaseException) -> None:
        """Note that an attempt failed, and why."""
        self.error = error
        self.cause = _cause_of(error)

    def rewrote(self, tail: Tail) -> None:
        """Note what was written again; the first time counts."""
        if tail.lines and self._rewritten_from is None:
            self._rewritten_from = tail.first_seq

    def ended(self) -> None:
        """Note when it was over."""
        self._ended_at = time.monotonic()

    def draft(self, seq: int) -> AuditDraft:
        """Return the record of its end, which becomes number *seq*."""
        known = self._rewritten_from
        detail = ResumeDetail(
            cause=self._first_cause.value,
            failed_at=max(self._failed_at, 0),
            rewritten_from=seq if known is None else known,
            attempts=self._attempts,
        )
        return AuditDraft(phase=Phase.SINGLE, kind="system.resume", detail=detail)


def _cause_of(error: BaseException) -> Cause:
    return error.cause if isinstance(error, MediumError) else Cause.WRITE


class Flusher:
    """
    Writes groups of records in the background.

    Args:
        lock: Held while calling `check`, `enqueue` or extending the chain.

        chain: Where the log ends; the flusher's own records go on it too.

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
        medium: AuditMedium,
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
        self._backlog = Backlog(medium, chain.end.mark())
        self._reserve = reserve
        self._reserve_at = _NEVER if reserve.take() else time.monotonic()
        self._clock = clock
        self._strict = sync is AuditSync.STRICT
        self._timeout = timeout_seconds
        self._pending = self._new_group()
        self._busy_since: float | None = None
        self._idle = False
        self._closing = False
        self._outage: Outage | None = None
        self._last_outage: Outage | None = None
        self._failures = 0
        self._resumes = 0
        self._thread = threading.Thread(
            target=self._run, name="hsm-audit-flusher", daemon=True
        )
        self._thread.start()

    def _new_group(self) -> Group:
        return Group(Ticket(self._timeout), Ticket(self._timeout))

    # What callers do; `check` and `enqueue` under the lock.

    @property
    def health(self) -> AuditHealth:
        """How the log is."""
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
            state=state,
            cause=cause,
            failures=failures,
            resumes=self._resumes,
            syncs=self._backlog.syncs.times(),
        )

    @property
    def written(self) -> HeadMark:
        """The end of what was written, and may be read."""
        return self._backlog.written

    @property
    def durable(self) -> HeadMark:
        """The end of what is durable."""
        return self._backlog.durable

    @property
    def failure(self) -> BaseException | None:
        """What the log suffers from now, or did when the thread ended."""
        outage = self._outage
        return None if outage is None else outage.error

    def check(self, *, reserved: bool = False) -> None:
        """
        Refuse if an append can't succeed now.

        Args:
            reserved: It may use the reserve.

        Raises:
            AuditUnavailableError: Writing failed, hangs, lags too far behind, the disk
                is full, or the log is closed.
        """
        outage = self._outage
        if outage is not None:
            raise AuditUnavailableError(outage.sentence) from outage.error
        if self._closing:
            raise AuditUnavailableError("The audit log is closed.")
        if self._hangs():
            raise AuditUnavailableError("The audit log was not written in time.")
        if self._pending.size > MAX_PENDING_BYTES:
            raise AuditUnavailableError(
                "Too many audit records are waiting to be written."
            )
        if not (reserved or self._reserve.held):
            raise AuditUnavailableError(
                "The disk is full: the audit log accepts only records of "
                "recovery and administration."
            )

    def enqueue(
        self, lines: list[bytes], *, durable: bool, lazy: bool = False
    ) -> Ticket:
        """Hand lines over to the thread; `check` must have passed."""
        group = self._pending
        group.add(lines)
        self._ring()
        if lazy and not durable:
            return group.written
        group.is_lazy = False
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
                # Any failure is reported to waiting callers, and nothing more is
                # answered.
                going = self._recover(error)

    def _turn(self) -> bool:
        group = self._take()
        began = self._busy_since = time.monotonic()
        if group is not None:
            self._backlog.write(group)
        self._backlog.sync()
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
            due = min(self._backlog.sync_at, self._medium.due(), self._reserve_at)
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
        group.mark = self._chain.end.mark()
        self._pending = self._new_group()
        return group

    def _rest(self, began: float) -> None:
        with self._lock:
            took = time.monotonic() - began
            self._busy_since = None
            if took <= self._timeout or self._closing:
                return
            # Appends were refused for some time, though nothing is lost.
            self._failures += 1
            self._resumes += 1
            since = self._clock.now() - int(took * 1_000_000)
            resume = Outage(Cause.HANGING, since).draft(self._chain.end.seq + 1)
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
        self._backlog.fail(error, () if last is None else (last,))
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
        tail = self._backlog.tail()
        try:
            self._backlog.heal(tail, outage.cause)
        except MediumError as error:
            if error.cause is not Cause.FULL or not self._reserve.give_up():
                raise
            self._reserve_at = time.monotonic() + _RESERVE_SECONDS
            self._backlog.heal(tail, outage.cause)
        outage.rewrote(tail)

    def _resume(self, outage: Outage) -> None:
        """Record the outage, durably, before anything else is appended."""
        group = self._new_group()
        with self._lock:
            group.add(self._extend([outage.draft(self._chain.end.seq + 1)]))
            group.mark = self._chain.end.mark()
        group.must_sync = True
        self._backlog.write(group)
        self._backlog.sync()
