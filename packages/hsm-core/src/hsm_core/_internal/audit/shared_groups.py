# SPDX-License-Identifier: MIT
"""Groups of records in the log of a cluster's node, and their conditions."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeAlias

from hsm_core._internal.audit.backlog import Backlog
from hsm_core._internal.audit.chain import LogEnd
from hsm_core._internal.audit.facts import Record
from hsm_core._internal.audit.head_mark import HeadMark
from hsm_core._internal.audit.medium import Group, GroupCondition, SharedMedium, Ticket
from hsm_core.protocols import AuditDraft, UseDraft

Draft: TypeAlias = AuditDraft | UseDraft


class FeedPosition(NamedTuple):
    """Newest change that a node has applied, and the head of the changes there."""

    revision: int
    head: bytes


class ClusterView(Protocol):
    """Cluster as the writer of a node's log sees it."""

    @property
    def node(self) -> str:
        """Name of the node."""
        ...

    @property
    def epoch(self) -> int:
        """Epoch of the node."""
        ...

    @property
    def position(self) -> FeedPosition:
        """
        Newest change that was applied; asked for under the log's lock.

        It moves after the cells of what has changed were bumped.
        """
        ...

    def written(self, mark: HeadMark) -> None:
        """Note where the log ends now, before any ticket is done; must not raise."""
        ...

    def catch_up(self) -> None:
        """
        Apply the changes that the database has; called by the log's thread.

        It must wait for nobody who waits for the log.

        Raises:
            UnavailableError: The node was fenced, or the database can't be read.
        """
        ...

    def renew(self) -> None:
        """
        Raise the node's own epoch, so that nothing sent before can still be written.

        Raises:
            UnavailableError: Another has raised it, or it can't be raised now.
        """
        ...


class Append(NamedTuple):
    """
    Records of one append.

    Attributes:
        drafts: The records.
        subjects: Keys and credentials on which uses among them were decided; if there
            are any, all of it is decided again where the group is refused.
        position: Where the node was when the uses were asked whether they stand.
    """

    drafts: Sequence[Draft]
    subjects: frozenset[str]
    position: FeedPosition

    @classmethod
    def of(cls, drafts: Sequence[Draft], position: FeedPosition) -> Append:
        """Return the append of drafts that stand at a position."""
        subjects = frozenset(s for draft in drafts for s in draft.subjects)
        return cls(drafts, subjects, position)


class SharedGroup(Group):
    """
    Group of records that are written together, on one condition.

    Attributes:
        uses: Ticket of the appends with uses, instead of `written` and `synced`.
        appends: Appends, in their order.
        tickets: Tickets of appends that were taken over from refused groups.
        end: State of the log after it; set when the group is taken.
        tried: Condition on which it was last written.
    """

    def __init__(self, timeout_seconds: float) -> None:
        super().__init__(timeout_seconds)
        self.uses = Ticket(timeout_seconds)
        self.appends: list[Append] = []
        self.tickets: list[Ticket] = []
        self.end: LogEnd | None = None
        self.tried: GroupCondition | None = None

    def take_in(self, append: Append, records: list[Record]) -> Ticket:
        """Add an append and its records, and return its ticket."""
        self.add(records)
        self.appends.append(append)
        return self.uses if append.subjects else self.synced

    def clear(self) -> None:
        """Forget all records and appends; their tickets stay."""
        self.records, self.size, self.appends = [], 0, []

    def condition(self, view: ClusterView) -> GroupCondition:
        """Return the condition on which the group may be written."""
        # Positions only move on, so that the first is the oldest.
        decided = [append for append in self.appends if append.subjects]
        position = decided[0].position if decided else view.position
        subjects = frozenset[str]().union(*(append.subjects for append in decided))
        return GroupCondition(
            node=view.node,
            epoch=view.epoch,
            revision=position.revision,
            head=position.head,
            subjects=tuple(subjects),
        )

    def complete(self, error: BaseException | None = None) -> None:
        """Complete all tickets."""
        super().complete(error)
        for ticket in (self.uses, *self.tickets):
            ticket.complete(error)


class SharedBacklog(Backlog):
    """
    Backlog of a medium on which what is written is durable.

    Args:
        medium: Where records go.

        view: Gives the conditions.

        mark: Where the log ends.

        timeout_seconds: How long a ticket waits if it isn't told.
    """

    def __init__(
        self,
        medium: SharedMedium,
        view: ClusterView,
        mark: HeadMark,
        timeout_seconds: float,
    ) -> None:
        super().__init__(medium, mark, timeout_seconds)
        self._shared = medium
        self._view = view
        self._open_groups: list[SharedGroup] = []

    def take(self, group: Group) -> None:
        """Keep a group, whatever becomes of it."""
        assert isinstance(group, SharedGroup)  # noqa: S101 (for the type checker)
        self._open_groups.append(group)

    def write(self, group: Group) -> None:
        """
        Write a group on its condition, and tell who waits.

        Raises:
            GroupRefusedError: Nothing was written; the group stays until `take_back`.
            MediumError: It is not known whether it was written; the group stays.
        """
        assert isinstance(group, SharedGroup)  # noqa: S101 (for the type checker)
        began = time.monotonic()
        group.tried = group.condition(self._view)
        self._shared.write_if(group.records, group.mark, group.tried)
        self.syncs.count(time.monotonic() - began)
        self._open_groups.remove(group)
        self.settled(group)

    def settled(self, group: SharedGroup) -> None:
        """Note that a group stands, and tell who waits."""
        self.written = self.durable = group.mark
        self._view.written(group.mark)
        group.complete()

    def take_back(self) -> list[SharedGroup]:
        """Return the groups that are not known to stand, oldest first, and let go."""
        groups, self._open_groups = self._open_groups, []
        return groups

    def keep(self, groups: list[SharedGroup]) -> None:
        """Keep groups that are still not known to stand."""
        self._open_groups = groups + self._open_groups

    def fail(self, error: BaseException) -> None:
        """Tell all who wait that it failed; what was chained stays."""
        for group in self._open_groups:
            group.complete(error)
