# SPDX-License-Identifier: MIT
"""
The one thread that writes a trail.

While a group is written and synced the next one gathers, so that one sync serves all
who wait. After any failure the thread ends and nothing is written any more.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Final

from hsm_core._internal.audit.mark import HeadMark
from hsm_core._internal.failpoints import failpoint
from hsm_core._internal.stores.filesystem.audit_groups import Group, Ticket
from hsm_core._internal.stores.filesystem.audit_head import HeadFile
from hsm_core._internal.stores.filesystem.audit_segments import Segments
from hsm_core.errors import AuditUnavailableError
from hsm_core.settings import AuditSync

__all__ = ["Flusher"]

MAX_PENDING_BYTES: Final = 16 * 1024 * 1024
"""Records may wait to be written up to this size; then appends are refused."""

_BOUNDED_SECONDS: Final = 0.02
_BOUNDED_RECORDS: Final = 512
_HEAD_SECONDS: Final = 1.0
_NEVER: Final = float("inf")


class Flusher:
    """
    Writes groups of records in the background.

    Args:
        lock: Held by whoever calls `enqueue`, `check` or `available`.

        segments: Where records go.

        head: Where the head mark goes.

        mark_now: Gives the mark of all records enqueued; called under the lock.

        sync: When a ticket is done.

        segment_bytes: Size above which a segment is closed.

        timeout_seconds: How long the disk may take before appends are refused.
    """

    def __init__(
        self,
        lock: threading.Lock,
        segments: Segments,
        head: HeadFile,
        mark_now: Callable[[], HeadMark],
        *,
        sync: AuditSync,
        segment_bytes: int,
        timeout_seconds: float,
    ) -> None:
        self._lock = lock
        self._bell = threading.Lock()
        self._bell.acquire()
        self._segments = segments
        self._head = head
        self._mark_now = mark_now
        self._strict = sync is AuditSync.STRICT
        self._segment_bytes = segment_bytes
        self._timeout = timeout_seconds
        self._pending = self._new_group()
        self._unsynced: list[Group] = []
        self._unsynced_records = 0
        self._sync_at = _NEVER
        self._busy_since: float | None = None
        self._idle = False
        self._closing = False
        self.failure: BaseException | None = None
        self.written = mark_now()
        self._thread = threading.Thread(
            target=self._run, name="hsm-audit-flusher", daemon=True
        )
        self._thread.start()

    def _new_group(self) -> Group:
        return Group(Ticket(self._timeout), Ticket(self._timeout))

    # What callers do, under the lock.

    def check(self) -> None:
        """
        Refuse if an append can't succeed now.

        Raises:
            AuditUnavailableError: Writing failed, hangs, lags too far behind, or the
                trail is closed.
        """
        if self.failure is not None:
            raise AuditUnavailableError from self.failure
        if self._closing:
            raise AuditUnavailableError("The audit trail is closed.")
        since = self._busy_since
        if since is not None and time.monotonic() - since > self._timeout:
            raise AuditUnavailableError("The audit trail is not written in time.")
        if self._pending.size > MAX_PENDING_BYTES:
            raise AuditUnavailableError("Too many records wait to be written.")

    def enqueue(self, lines: list[bytes], *, durable: bool) -> Ticket:
        """Hand lines over to the thread; `check` must have passed."""
        group = self._pending
        group.add(lines)
        self._ring()
        if durable or self._strict:
            group.must_sync = True
            return group.synced
        return group.written

    def _ring(self) -> None:
        if self._idle:
            self._idle = False
            self._bell.release()

    # What the caller of `close` does, without the lock.

    def close(self) -> bool:
        """Write and sync what waits, mark the end; return whether the thread ended."""
        with self._lock:
            self._closing = True
            self._ring()
        self._thread.join(self._timeout)
        return not self._thread.is_alive()

    # What the thread does.

    def _run(self) -> None:
        try:
            while self._turn():
                pass
            self._finish()
        except BaseException as error:
            self._fail(error)

    def _turn(self) -> bool:
        group = self._take()
        self._busy_since = time.monotonic()
        if group is not None:
            self._write(group)
        if self._sync_at != _NEVER and self._sync_at <= time.monotonic():
            self._sync()
        if self._head_at() <= time.monotonic():
            self._head.sync()
        self._busy_since = None
        return group is not None or not self._closing

    def _take(self) -> Group | None:
        """Return the next group, or None when something else is due."""
        with self._lock:
            if self._pending.lines or self._closing:
                return self._swap()
            due = min(self._sync_at, self._head_at())
            wait = -1 if due == _NEVER else max(due - time.monotonic(), 0)
            self._idle = True
        rung = self._bell.acquire(timeout=wait)
        with self._lock:
            self._idle = False
            if not rung:
                # It may have rung just as the wait ended, and must be silent again.
                self._bell.acquire(blocking=False)
            return self._swap()

    def _swap(self) -> Group | None:
        group = self._pending
        if not group.lines:
            return None
        group.mark = self._mark_now()
        self._pending = self._new_group()
        return group

    def _head_at(self) -> float:
        since = self._head.dirty_since
        return _NEVER if since is None else since + _HEAD_SECONDS

    def _write(self, group: Group) -> None:
        self._unsynced.append(group)
        self._segments.write(group.lines)
        self.written = group.mark
        group.written.complete()
        self._unsynced_records += len(group.lines)
        if group.must_sync or self._unsynced_records >= _BOUNDED_RECORDS:
            self._sync_at = 0.0
        elif self._sync_at == _NEVER:
            self._sync_at = time.monotonic() + _BOUNDED_SECONDS

    def _sync(self) -> None:
        self._segments.sync()
        self._head.write(self._unsynced[-1].mark)
        failpoint("audit.after_mark")
        synced, self._unsynced = self._unsynced, []
        self._unsynced_records, self._sync_at = 0, _NEVER
        for group in synced:
            group.synced.complete()
        if self._segments.live.size > self._segment_bytes:
            self._head.sync()
            self._segments.rotate()

    def _finish(self) -> None:
        if self._unsynced:
            self._sync()
        self._segments.sync()
        failpoint("audit.before_clean_mark")
        clean = replace(self.written, clean=True)
        # Both slots, so that neither is a way back to an unclean end.
        self._head.write(clean)
        self._head.write(clean)
        self._head.sync()

    def _fail(self, error: BaseException) -> None:
        with self._lock:
            self.failure = error
            lost = [*self._unsynced, self._pending]
            self._unsynced, self._pending = [], self._new_group()
        for group in lost:
            group.complete(error)
