# SPDX-License-Identifier: MIT
"""
Records between the chain and the disk: written or not, and not known to be durable.

They stay in memory until then, whatever callers got meanwhile, so that after a
failure they can be written again.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Final

from hsm_core._internal.audit.mark import HeadMark
from hsm_core._internal.stores.trail.groups import Group
from hsm_core._internal.stores.trail.medium import Cause, Tail, TrailMedium
from hsm_core._internal.stores.trail.sync_times import SyncClock

_BOUNDED_SECONDS: Final = 0.02
_BOUNDED_RECORDS: Final = 512
_LAZY_SECONDS: Final = 1.0
_NEVER: Final = float("inf")


class Backlog:
    """
    Writes groups on a medium, and knows what is durable. For one thread.

    Args:
        medium: Where records go.

        mark: Where the trail ends; all of it is durable.

    Attributes:
        written: The end of what was written, and may be read.
        durable: The end of what is durable.
        sync_at: Instant of ``time.monotonic()`` at which a sync is due, or inf.
        syncs: How long syncs took, or writes that were syncs too.
    """

    def __init__(self, medium: TrailMedium, mark: HeadMark) -> None:
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
