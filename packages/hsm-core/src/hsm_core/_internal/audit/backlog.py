# SPDX-License-Identifier: MIT
"""Backlog of an audit log: records that are written and not known to be durable."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

from hsm_core._internal.audit.facts import Record
from hsm_core._internal.audit.head_mark import HeadMark
from hsm_core._internal.audit.medium import (
    AuditMedium,
    Cause,
    Group,
    SyncClock,
    Tail,
    Ticket,
)

_BOUNDED_SECONDS: Final = 0.02
_BOUNDED_RECORDS: Final = 512
_LAZY_SECONDS: Final = 1.0

_NEVER: Final = float("inf")


class Backlog:
    """
    Writes records on a medium, keeps them until they are durable, and knows what is.

    One thread writes at a time: a caller under the log's lock, or the flusher's thread
    while no caller may. Only the flusher's thread syncs; callers may write meanwhile.

    Args:
        medium: Where records go.

        mark: Where the log ends; all of it is durable.

        timeout_seconds: How long a ticket waits if it isn't told.

    Attributes:
        written: The end of what was written, and may be read.
        durable: The end of what is durable.
        open_bytes: Bytes that callers wrote themselves since the last sync began.
        synced: Ticket of these; done when they are durable.
        sync_at: Instant of ``time.monotonic()`` at which a sync is due, or inf.
        syncs: How long syncs took.
    """

    def __init__(
        self, medium: AuditMedium, mark: HeadMark, timeout_seconds: float
    ) -> None:
        self._medium = medium
        self._timeout = timeout_seconds
        self._syncing: list[Group] = []
        self._unsynced: list[Group] = []
        self._open: Group | None = None
        self._count = self._count_in_sync = 0
        self.open_bytes = 0
        self.synced = Ticket(timeout_seconds)
        self.written = mark
        self.durable = mark
        self.sync_at = _NEVER
        self.syncs = SyncClock()

    def take(self, group: Group) -> None:
        """Keep a group, whatever becomes of it."""
        self._unsynced.append(group)

    def write(self, group: Group) -> None:
        """
        Write a group that was taken, and note when its sync is due.

        Raises:
            MediumError: It may have been written in part, or wholly.
        """
        self._open = None
        self._write(group.records, group.mark)
        self._note_due(time.monotonic(), must_sync=group.must_sync, lazy=group.is_lazy)
        group.written.complete()

    def write_more(
        self,
        records: list[Record],
        mark: HeadMark,
        now: float,
        durable: bool,
        lazy: bool,
    ) -> bool:
        """
        Write the records of one append, and return whether callers must wait.

        They must where a power failure would lose too many records.

        Args:
            records: The next ones.

            mark: Where the log ends with them.

            now: Instant of ``time.monotonic()``.

            durable: Somebody waits for the sync.

            lazy: Nobody cares when they are synced.

        Raises:
            MediumError: They may have been written in part, or wholly.
        """
        group = self._open or self._begin_open()
        group.records += records
        group.mark = mark
        for facts, entry in records:
            self.open_bytes += len(facts) + len(entry)
        self._medium.write(records, mark)
        self.written = mark
        self._count = count = self._count + len(records)
        if durable or lazy or count >= _BOUNDED_RECORDS:
            self._note_due(now, must_sync=durable, lazy=lazy)
        elif self.sync_at > (due := now + _BOUNDED_SECONDS):
            self.sync_at = due
        return count + self._count_in_sync >= _BOUNDED_RECORDS

    @property
    def newest(self) -> Record | None:
        """The newest record that a caller wrote itself since the last sync began."""
        group = self._open
        return None if group is None else group.newest

    def _begin_open(self) -> Group:
        group = Group(self._timeout)
        self.take(group)
        self._open, self.synced = group, group.synced
        return group

    def _write(self, records: Sequence[Record], mark: HeadMark) -> None:
        self._medium.write(records, mark)
        self.written = mark
        self._count += len(records)

    def _note_due(self, now: float, *, must_sync: bool, lazy: bool) -> None:
        if must_sync or self._count >= _BOUNDED_RECORDS:
            self.sync_at = 0.0
            return
        at = now + (_LAZY_SECONDS if lazy else _BOUNDED_SECONDS)
        if at < self.sync_at:
            self.sync_at = at

    def prepare_sync(self) -> bool:
        """
        Note what the next sync makes durable, while nobody writes.

        Returns:
            Whether there is anything.

        Raises:
            MediumError: What was written is not where it should be.
        """
        if not self._unsynced:
            return False
        self._medium.prepare_sync(self.written)
        self._syncing, self._unsynced = self._unsynced, []
        self._open, self.sync_at = None, _NEVER
        self._count, self._count_in_sync = 0, self._count
        self.open_bytes = 0
        return True

    def sync(self) -> None:
        """
        Make durable what `prepare_sync` has noted, and tell who waits.

        Raises:
            MediumError: It may not be.
        """
        began = time.monotonic()
        self._medium.sync()
        self.syncs.count(time.monotonic() - began)
        self._count_in_sync = 0
        self.durable = self._syncing[-1].mark
        for group in self._syncing:
            group.synced.complete()
        self._syncing = []

    def fail(self, error: BaseException) -> None:
        """Tell all who wait that it failed; what was chained stays."""
        self._open, self.sync_at = None, _NEVER
        for group in self._groups():
            group.complete(error)

    def tail(self) -> Tail:
        """Return what is not known to be durable."""
        # One that was begun and interrupted has no records, and no mark.
        groups = [group for group in self._groups() if group.records]
        records = [record for group in groups for record in group.records]
        mark = groups[-1].mark if groups else self.durable
        return Tail(records, mark.seq + 1 - len(records), mark)

    def heal(self, tail: Tail, cause: Cause) -> None:
        """
        Let the medium make the tail durable.

        Raises:
            MediumError: It still can't be.
        """
        self._medium.heal(tail, cause)
        self.written = self.durable = tail.mark
        self._syncing, self._unsynced = [], []
        self._count = self._count_in_sync = self.open_bytes = 0
        self.sync_at = _NEVER

    def _groups(self) -> list[Group]:
        return self._syncing + self._unsynced
