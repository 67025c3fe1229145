# SPDX-License-Identifier: MIT
"""
Writer of the log of a cluster's node: each group is written on condition.

A group is written if the node was not fenced and nothing has changed that its uses were
decided on, in one transaction. If it is refused, the chain goes back to what stands;
the node applies the changes, records that are no uses are chained again under the same
tickets, and uses are decided again by those who wait for them.

After a write with unknown outcome the node raises its own epoch, so that nothing of it
can still arrive, and reads what stands. To write the group again would not be enough:
after a change it would be refused, whether it stands or not.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Final

from hsm_core._internal.audit.chain import Chain, LogEnd
from hsm_core._internal.audit.facts import Record
from hsm_core._internal.audit.medium import (
    Group,
    GroupRefusedError,
    Reserve,
    SharedMedium,
    Tail,
)
from hsm_core._internal.audit.outage import Outage
from hsm_core._internal.audit.reasons import Reason, tampered
from hsm_core._internal.audit.shared_groups import (
    Append,
    ClusterView,
    Draft,
    FeedPosition,
    SharedBacklog,
    SharedGroup,
)
from hsm_core._internal.audit.writer import Flusher
from hsm_core.errors import AuditUnavailableError
from hsm_core.protocols import AuditDraft, AuditTicket, Clock
from hsm_core.settings import AuditSync

_NOBODY: Final = FeedPosition(0, b"")


class SharedFlusher(Flusher):
    """
    Writes the records of one node's log; see `Flusher`.

    Args:
        lock: See `Flusher`, like all but these two.

        view: The cluster.

        announce: Called with drafts that were chained, before they can be written.
    """

    _new_group = SharedGroup

    def __init__(
        self,
        lock: threading.Lock,
        chain: Chain,
        medium: SharedMedium,
        reserve: Reserve,
        view: ClusterView,
        announce: Callable[[Sequence[Draft]], None],
        *,
        clock: Clock,
        timeout_seconds: float,
    ) -> None:
        self._shared = medium
        self._view = view
        self._announce = announce
        self._stands = chain.end
        self._noted = Append((), frozenset(), _NOBODY)
        self._kept: list[Append] = []
        super().__init__(
            lock,
            chain,
            medium,
            reserve,
            clock=clock,
            sync=AuditSync.STRICT,
            timeout_seconds=timeout_seconds,
        )

    def _begin_backlog(self) -> SharedBacklog:
        mark = self._chain.end.mark
        self._groups = SharedBacklog(self._shared, self._view, mark, self._timeout)
        return self._groups

    def note(self, append: Append) -> None:
        """Note what is chained next; under the lock."""
        self._noted = append

    def _hand_over(
        self, records: list[Record], *, durable: bool, lazy: bool
    ) -> AuditTicket:
        group = self._shared_pending
        group.must_sync, group.is_lazy = True, False
        ticket = group.take_in(self._noted, records)
        self._is_urgent = self._is_urgent or len(group.records) >= self._gathers
        return ticket

    @property
    def _shared_pending(self) -> SharedGroup:
        assert isinstance(self._pending, SharedGroup)  # noqa: S101 (for the type checker)
        return self._pending

    # What the thread does.

    def _append_own(self, draft: AuditDraft) -> None:
        append = Append.of([draft], self._view.position)
        self._shared_pending.take_in(append, self._extend([draft]))

    def _swap(self) -> Group | None:
        group = super()._swap()
        if isinstance(group, SharedGroup):
            group.end = self._chain.end
        return group

    def _write(self, group: Group) -> None:
        assert isinstance(group, SharedGroup)  # noqa: S101 (for the type checker)
        try:
            self._groups.write(group)
        except GroupRefusedError as refusal:
            self._view.catch_up()
            group.uses.complete(refusal)
            tried = group.tried
            is_free = tried is None or not tried.subjects
            if is_free and group.condition(self._view) == tried:
                # Nothing has changed, so that it would be refused again.
                raise AuditUnavailableError from refusal
            with self._lock:
                self._chain_again(self._groups.take_back())
        else:
            self._stood(group)

    def _stood(self, group: SharedGroup) -> None:
        if group.end is not None:
            self._stands = group.end

    def _chain_again(self, refused: Sequence[SharedGroup]) -> None:
        """Put what is no use before what is pending, and chain all of it again."""
        pending = self._shared_pending
        appends = [a for g in refused for a in g.appends if not a.subjects]
        appends += pending.appends
        pending.clear()
        for group in refused:
            pending.tickets += [group.written, group.synced, *group.tickets]
        self._go_back(self._stands)
        for append in appends:
            pending.take_in(append, self._chained(append))
        pending.must_sync, pending.is_lazy = True, False
        self._is_urgent = self._is_urgent or bool(appends)

    def _go_back(self, end: LogEnd) -> None:
        self._chain.end = self._stands = end

    def _chained(self, append: Append) -> list[Record]:
        records = self._chain.extend(append.drafts, self._clock.now())
        self._announce(append.drafts)
        return records

    # What the thread does after a failure.

    def _heal(self, outage: Outage) -> None:
        self._view.renew()
        self._shared.reconnect()
        groups = self._groups.take_back()
        try:
            standing = self._shared.standing(self._groups.durable.seq + 1)
        except BaseException:
            self._groups.keep(groups)
            raise
        while groups and standing:
            group, count = groups[0], len(groups[0].records)
            if standing[:count] != group.records:
                break
            del groups[0], standing[:count]
            self._stood(group)
            self._groups.settled(group)
        if standing:
            self._groups.keep(groups)
            raise tampered(Reason.CHAIN, self._groups.durable.seq + 1)
        self._kept += [a for g in groups for a in g.appends if not a.subjects]
        self._view.catch_up()

    def _resume(self, outage: Outage) -> None:
        """Write again what is no use, with the record of the outage behind it."""
        group = SharedGroup(self._timeout)
        with self._lock:
            self._go_back(self._stands)
            first = self._chain.next_seq
            for append in self._kept:
                group.take_in(append, self._chained(append))
            outage.rewrote(Tail(group.records, first, group.mark))
            group.add(self._extend([outage.draft(self._chain.next_seq)]))
            group.mark, group.end = self._chain.end.mark, self._chain.end
            self._groups.take(group)
            self._kept = []
        self._groups.write(group)
        self._stood(group)
