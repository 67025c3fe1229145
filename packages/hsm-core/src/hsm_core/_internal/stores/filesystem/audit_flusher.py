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
        self._wake = threading.Condition(lock)
        self._segments = segments
        self._head = head
        self._mark_now = mark_now
        self._strict = sync is AuditSync.STRICT
        self._segment_bytes = segment_bytes
        self._timeout = timeout_seconds
        self._pending = self._new_group()
        self._unsynced: list[Group] = []
        self._unsynced_since = 0.0
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
        if self._idle:
            self._idle = False
            self._wake.notify()
        if durable or self._strict:
            group.must_sync = True
            return group.synced
        return group.written

    # What the caller of `close` does, without the lock.

    def close(self) -> bool:
        """Write and sync what waits, mark the end; return whether the thread ended."""
        with self._wake:
            self._closing = True
            self._wake.notify()
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
        if self._unsynced and self._wait_seconds() <= 0:
            self._sync()
        if self._head_wait_seconds() <= 0:
            self._head.sync()
        self._busy_since = None
        return group is not None or not self._closing

    def _take(self) -> Group | None:
        with self._wake:
            if not self._pending.lines and not self._closing:
                wait = min(self._wait_seconds(), self._head_wait_seconds())
                if wait > 0:
                    self._idle = True
                    self._wake.wait(None if wait == _NEVER else wait)
                    self._idle = False
            group = self._pending
            if not group.lines:
                return None
            group.mark = self._mark_now()
            self._pending = self._new_group()
            return group

    def _wait_seconds(self) -> float:
        """Return how long the next sync of the trail may wait."""
        if not self._unsynced:
            return _NEVER
        records = sum(len(group.lines) for group in self._unsynced)
        if records >= _BOUNDED_RECORDS or any(g.must_sync for g in self._unsynced):
            return 0
        return self._unsynced_since + _BOUNDED_SECONDS - time.monotonic()

    def _head_wait_seconds(self) -> float:
        since = self._head.dirty_since
        if since is None:
            return _NEVER
        return since + _HEAD_SECONDS - time.monotonic()

    def _write(self, group: Group) -> None:
        if not self._unsynced:
            self._unsynced_since = time.monotonic()
        self._unsynced.append(group)
        self._segments.write(group.lines)
        self.written = group.mark
        group.written.complete()

    def _sync(self) -> None:
        self._segments.sync()
        self._head.write(self._unsynced[-1].mark)
        failpoint("audit.after_mark")
        synced, self._unsynced = self._unsynced, []
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
        with self._wake:
            self.failure = error
            lost = [*self._unsynced, self._pending]
            self._unsynced, self._pending = [], self._new_group()
        for group in lost:
            group.complete(error)
