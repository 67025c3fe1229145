# SPDX-License-Identifier: MIT
"""
Writer of an audit log: what callers write themselves, and the thread that syncs it.

In bounded mode the caller writes its records, under the log's lock, and the thread only
syncs. In strict mode, and under an event loop, callers hand their records over: while
the thread writes and syncs a group the next one gathers, so that one sync serves all
who wait.

After a failure all waiting callers get an error and appends are refused, until the
medium has healed and a record says so. The chain never goes back: records stay in
memory until they are durable, so that after a failure they are written again.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Final

from hsm_core._internal.audit.backlog import Backlog
from hsm_core._internal.audit.chain import Chain
from hsm_core._internal.audit.facts import Record
from hsm_core._internal.audit.head_mark import HeadMark
from hsm_core._internal.audit.medium import (
    DONE,
    AuditMedium,
    Cause,
    Group,
    MediumError,
    Reserve,
    Ticket,
)
from hsm_core._internal.audit.outage import Outage, cause_of, sentence_of
from hsm_core._internal.lib.concurrency import SHORTAGE_SECONDS, Bell
from hsm_core._internal.lib.failpoints import failpoint
from hsm_core._internal.lib.silence import MOMENT_SECONDS, is_opening, pauses
from hsm_core.errors import AuditUnavailableError
from hsm_core.model import Phase
from hsm_core.protocols import AuditDraft, AuditHealth, AuditTicket, Clock, UseDraft
from hsm_core.settings import AuditSync

MAX_PENDING_BYTES: Final = 16 * 1024 * 1024
"""Maximum size of records that wait to be written or synced; more are rejected."""

_RESERVE_SECONDS: Final = 1.0
_NEVER: Final = float("inf")

_MANY: Final = 4
_GATHER_SECONDS: Final = 0.001
"""In strict mode, time to gather a group of records if the last group was large."""


class Flusher:
    """
    Writes and syncs the records of one log.

    Args:
        lock: Held while calling `check`, `enqueue` or extending the chain.

        chain: Where the log ends; the flusher's own records go on it too.

        medium: Where records go.

        reserve: Room for the records that matter when the disk is full.

        clock: Gives the time of the flusher's own records.

        sync: When a ticket is done.

        timeout_seconds: How long the disk may take before appends are refused.
    """

    _new_group: type[Group] = Group

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
        self._bell = Bell()
        self._chain = chain
        self._medium = medium
        self._timeout = timeout_seconds
        self._backlog = self._begin_backlog()
        self._reserve = reserve
        self._reserve_at = _NEVER if reserve.take() else time.monotonic()
        self._clock = clock
        self._strict = sync is AuditSync.STRICT
        self._pending = self._new_group(timeout_seconds)
        self._busy_since: float | None = None
        self._written_since: float | None = None
        self._late = _NEVER, _NEVER
        self._hung_seconds = 0.0
        self._hands_over = self._strict
        self._is_writing = False
        self._is_urgent = False
        self._gathers, self._gathers_until = 1, _NEVER
        self._wakes_at = 0.0
        self._closing = False
        self._failure: BaseException | None = None
        self._outage: Outage | None = None
        self._last_outage: Outage | None = None
        self._failures = 0
        self._resumes = 0
        self._thread = threading.Thread(
            target=self._run, name="hsm-audit-flusher", daemon=True
        )
        self._thread.start()

    def _begin_backlog(self) -> Backlog:
        return Backlog(self._medium, self._chain.end.mark, self._timeout)

    # What callers do; `check`, `enqueue` and `must_ring` under the lock.

    @property
    def health(self) -> AuditHealth:
        """How the log is."""
        state, cause, failures = "ok", "", self._failures
        failure = self._failure
        if failure is not None:
            state, cause = "failing", cause_of(failure).value
            # The thread may have yet to count it.
            failures += self._outage is None
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
        return self._failure

    def check(
        self, drafts: Sequence[AuditDraft | UseDraft] = (), *, reserved: bool = False
    ) -> None:
        """
        Refuse if an append can't succeed now.

        Args:
            drafts: Its records.

            reserved: It may use the reserve, whatever they are.

        Raises:
            AuditUnavailableError: Writing failed, hangs, lags too far behind, the disk
                is full, or the log is closed.
        """
        failure = self._failure
        if failure is not None:
            raise AuditUnavailableError(sentence_of(failure)) from failure
        if self._closing:
            raise AuditUnavailableError("The audit log is closed.")
        if self._busy_since is not None and self._hangs_too_long():
            raise AuditUnavailableError("The audit log was not written in time.")
        if self._pending.size + self._backlog.open_bytes > MAX_PENDING_BYTES:
            raise AuditUnavailableError(
                "Too many audit records are waiting to be written."
            )
        if not (self._reserve.held or reserved or _use_the_reserve(drafts)):
            raise AuditUnavailableError(
                "The disk is full: the audit log accepts only records of "
                "recovery and administration."
            )

    def wait_for_lock(self, held: list[bool]) -> None:
        """
        Take the lock, which a caller holds while it writes.

        Args:
            held: Whether it was taken is added here.

        Raises:
            AuditUnavailableError: One that hangs has it.
        """
        if not self._hangs_too_long():
            for seconds in pauses(self._timeout):
                held.extend(map(self._lock.acquire, (True,), (seconds,)))
                if held[-1]:
                    return
        raise AuditUnavailableError("The audit log was not written in time.")

    def enqueue(
        self, records: list[Record], *, durable: bool, lazy: bool = False
    ) -> AuditTicket:
        """Write records, or hand them to the thread; `check` must have passed."""
        if self._hands_over or self._is_writing:
            return self._hand_over(records, durable=durable, lazy=lazy)
        backlog = self._backlog
        began = self._written_since = time.monotonic()
        try:
            is_far_ahead = backlog.write_more(
                records, self._chain.end.mark, began, durable, lazy
            )
        except BaseException as error:
            self._fail(error)
            if not (isinstance(error, Exception) and self.has_taken(records)):
                raise
            # Healing writes what is not there: so the ticket fails, not the append.
            return Ticket.failed(error)
        finally:
            self._written_since = None
        took = time.monotonic() - began
        if took > self._timeout:
            self._hung_seconds = took
            self._is_urgent = True
        return backlog.synced if durable or (is_far_ahead and not lazy) else DONE

    def _hand_over(
        self, records: list[Record], *, durable: bool, lazy: bool
    ) -> AuditTicket:
        """Let the thread write the records of a caller."""
        group = self._pending
        group.add(records)
        self._is_urgent = self._is_urgent or len(group.records) >= self._gathers
        if lazy and not durable:
            return group.written
        group.is_lazy = False
        if durable or self._strict:
            group.must_sync = True
            return group.synced
        return group.written

    def has_taken(self, records: list[Record]) -> bool:
        """
        Return whether the newest append's records will be written; under the lock.

        It needs no memory.
        """
        if not records:
            return False
        newest = records[-1]
        return newest is self._pending.newest or newest is self._backlog.newest

    def must_ring(self) -> bool:
        """Return whether the thread sleeps and has something to do before it wakes."""
        if not (self._is_urgent or self._backlog.sync_at < self._wakes_at):
            return False
        is_asleep, self._wakes_at = self._wakes_at > 0, 0.0
        return is_asleep

    def ring(self) -> None:
        """Wake the thread; without the lock, which it takes first."""
        # It may ring late, when the thread has woken by itself and sleeps again.
        self._bell.ring()

    def hand_over(self) -> None:
        """Let callers never wait for the disk: an event loop is among them."""
        with self._lock:
            self._hands_over = True

    def close(self) -> bool:
        """
        Write and sync what waits, mark the end, close medium and reserve.

        Returns:
            Whether that is done. The thread does it as soon as nothing hangs any more.
        """
        self._closing = True
        self.ring()
        # A caller that hangs in its write holds the lock, so the thread may take twice.
        self._thread.join(2 * self._timeout)
        return not self._thread.is_alive()

    def _hangs(self) -> bool:
        busy, written = self._busy_since, self._written_since
        if busy is None and written is None:
            return False
        now = time.monotonic()
        since = min(found for found in (busy, written) if found is not None)
        if since >= now - self._timeout:
            return False
        if since != self._late[0]:
            # A process that was paused finds the time over: it is given a moment.
            self._late = since, now + MOMENT_SECONDS
        return now >= self._late[1]

    def _hangs_too_long(self) -> bool:
        """Return whether a caller must not wait; one that opens the store may."""
        return self._hangs() and not is_opening()

    # What the thread does.

    def _run(self) -> None:
        try:
            while self._goes_on():
                pass
        finally:
            self._reserve.close()
            self._medium.close()

    def _goes_on(self) -> bool:
        try:
            if self._turn():
                return True
            self._finish()
            return False
        except BaseException as error:
            # Any failure is reported to waiting callers, and nothing more is answered.
            self._fail(error)
        while True:
            try:
                return self._recover()
            except BaseException as error:
                # It is tried again once there may be memory.
                self._fail(error)
                time.sleep(SHORTAGE_SECONDS)

    def _turn(self) -> bool:
        # Who still passed `check` by now has enqueued before the lock is taken.
        is_closing = self._closing
        group, tidies = self._take()
        began = self._busy_since = time.monotonic()
        if group is not None:
            self._write(group)
        if tidies or self._backlog.sync_at <= time.monotonic():
            self._sync(tidies=tidies)
        if tidies:
            self._medium.tidy()
        if self._reserve_at <= time.monotonic():
            self._retake()
        self._rest(began, len(group.records) if group else 0)
        return group is not None or not is_closing

    def _write(self, group: Group) -> None:
        self._backlog.write(group)

    def _take(self) -> tuple[Group | None, bool]:
        """Wait until something is due; return the next group, and whether to tidy."""
        while True:
            with self._lock:
                self._check_outage()
                now = time.monotonic()
                tidy_at = self._medium.due()
                due = min(self._backlog.sync_at, tidy_at, self._reserve_at)
                due = min(due, self._gathers_until)
                if self._is_urgent or self._closing or due <= now:
                    # What is pending, hung or closing is seen to now.
                    self._is_urgent = False
                    self._gathers, self._gathers_until = 1, _NEVER
                    group, tidies = self._swap(), tidy_at <= now
                    self._is_writing = tidies or group is not None
                    return group, tidies
                self._wakes_at = due
            self._sleep(due - now)

    def _sleep(self, seconds: float) -> None:
        """Wait until the bell rings, which `_wakes_at` asks for; it may ring late."""
        self._bell.wait(-1 if seconds == _NEVER else max(seconds, 0))
        with self._lock:
            self._wakes_at = 0.0

    def _swap(self) -> Group | None:
        group = self._pending
        if not group.records:
            return None
        group.mark = self._chain.end.mark
        following = self._new_group(self._timeout)
        # Lines that are chained are in one or the other, also if this fails midway.
        self._backlog.take(group)
        self._pending = following
        return group

    def _sync(self, *, tidies: bool) -> None:
        """Sync what is written; callers may write meanwhile, unless it is tidied."""
        with self._lock:
            self._check_outage()
            is_due = self._backlog.prepare_sync()
            self._is_writing = tidies or bool(self._pending.records)
        if is_due:
            self._backlog.sync()

    def _rest(self, began: float, records: int) -> None:
        with self._lock:
            took = max(time.monotonic() - began, self._hung_seconds)
            self._busy_since, self._hung_seconds = None, 0.0
            if took > self._timeout and not self._closing and self._failure is None:
                # Nothing is lost, but appends were refused, or a start had to wait.
                self._failures += 1
                self._resumes += 1
                since = self._clock.now() - int(took * 1_000_000)
                resume = Outage(Cause.HANGING, since).draft(self._chain.next_seq)
                self._append_own(resume)
                self._pending.must_sync = self._is_urgent = True
            self._is_writing = bool(self._pending.records)
            if self._strict and records >= _MANY and not self._closing:
                # Those who waited soon come again: one sync can serve them all.
                self._gathers = records
                self._gathers_until = time.monotonic() + _GATHER_SECONDS
                self._is_urgent = len(self._pending.records) >= records

    def _finish(self) -> None:
        """Make all durable, and note a clean end."""
        with self._lock:
            is_due = self._backlog.prepare_sync()
        if is_due:
            self._backlog.sync()
        self._medium.finish(self.written)

    def _extend(self, drafts: Sequence[AuditDraft]) -> list[Record]:
        return self._chain.extend(drafts, self._clock.now())

    def _append_own(self, draft: AuditDraft) -> None:
        before = self._chain.end
        try:
            self._pending.add(self._extend([draft]))
        except BaseException:
            self._chain.end = before
            raise

    def _retake(self) -> None:
        taken = self._reserve.take()
        self._reserve_at = _NEVER if taken else time.monotonic() + _RESERVE_SECONDS

    # What the thread does after a failure.

    def _check_outage(self) -> None:
        """Raise what a caller met that wrote."""
        if self._failure is not None:
            raise self._failure

    def _fail(self, error: BaseException) -> None:
        """Accept nothing until the thread has recovered; it needs no memory."""
        self._failure = error
        self._is_urgent = True

    def _recover(self) -> bool:
        """Tell who waits, then try until the medium heals; False when closing."""
        outage = self._begin_outage()
        while self._pause(outage):
            try:
                self._heal(outage)
                self._resume(outage)
            except BaseException as again:
                self._failure = again
                continue
            with self._lock:
                self._failure = self._outage = None
                self._is_urgent = False
                self._last_outage = outage
                self._resumes += 1
                self._is_writing = False
            outage.ended()
            return True
        return False

    def _begin_outage(self) -> Outage:
        with self._lock:
            error, outage = self._failure, self._outage
            assert error is not None  # noqa: S101 (for the type checker)
            if outage is None:
                outage = Outage.of(error, self._clock.now(), self._last_outage)
                self._outage = outage
                self._failures += 1
            self._busy_since, self._hung_seconds = None, 0.0
            # Nobody who is refused meanwhile may wake the thread from its pauses.
            self._is_urgent = False
            self._swap()
        self._backlog.fail(error)
        failpoint("audit.outage")
        return outage

    def _pause(self, outage: Outage) -> bool:
        seconds = outage.next_pause()
        with self._lock:
            if self._closing:
                return False
            self._wakes_at = time.monotonic() + seconds
        self._sleep(seconds)
        return not self._closing

    def _heal(self, outage: Outage) -> None:
        tail = self._backlog.tail()
        cause = cause_of(self._failure)
        try:
            self._backlog.heal(tail, cause)
        except MediumError as error:
            if error.cause is not Cause.FULL or not self._reserve.give_up():
                raise
            self._reserve_at = time.monotonic() + _RESERVE_SECONDS
            self._backlog.heal(tail, cause)
        outage.rewrote(tail)

    def _resume(self, outage: Outage) -> None:
        """Record the outage, durably, before anything else is appended."""
        with self._lock:
            self._append_own(outage.draft(self._chain.next_seq))
            group = self._swap()
            assert group is not None  # noqa: S101 (for the type checker)
        self._backlog.write(group)
        with self._lock:
            self._backlog.prepare_sync()
        self._backlog.sync()


def _use_the_reserve(drafts: Sequence[AuditDraft | UseDraft]) -> bool:
    """Whether all tell of what has been done already, or of the system itself."""
    return bool(drafts) and all(
        draft.phase is Phase.OUTCOME or draft.kind.startswith("system.")
        for draft in drafts
    )
