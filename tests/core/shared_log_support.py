"""A database of a cluster in memory, for tests of logs that nodes share."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar

from hsm_core._internal.audit.chain import LogEnd
from hsm_core._internal.audit.facts import Record
from hsm_core._internal.audit.head_mark import HeadMark, StoredHead
from hsm_core._internal.audit.medium import (
    Cause,
    GroupCondition,
    GroupRefusedError,
    MediumError,
    Tail,
)
from hsm_core._internal.audit.shared_groups import FeedPosition
from hsm_core._internal.audit.shared_log import SharedAuditLog
from hsm_core._internal.audit.verify import RecoveredLog
from hsm_core._internal.stores.postgresql.audit import NoReserve
from hsm_core.errors import UnavailableError
from tests.core.audit_support import options, stored


class FakeDatabase:
    """
    Fence, changes and records of one node.

    Attributes:
        epoch: Of the node.
        changes: Subject of each change, None for all keys, by its revision.
        records: Records that were written.
        unknown: Writes with unknown outcome that come next: whether each is made.
        before_write: Called before each write.
    """

    def __init__(self) -> None:
        self.guard = threading.RLock()
        self.epoch = 1
        self.is_fenced = False
        self.changes: list[str | None] = ["begin"]
        self.records: list[Record] = []
        self.unknown: list[bool] = []
        self.before_write: Callable[[], None] = lambda: None

    def change(self, subject: str | None) -> None:
        """Commit a change."""
        with self.guard:
            self.changes.append(subject)

    def holds(self, condition: GroupCondition) -> bool:
        """Return whether a group may be written."""
        later = self.changes[condition.revision + 1 :]
        return (
            condition.epoch == self.epoch
            and condition.head == head_at(condition.revision)
            and not any(s is None or s in condition.subjects for s in later)
        )


def head_at(revision: int) -> bytes:
    """Return the head of the changes at a revision."""
    return b"head %d" % revision


class FakeMedium:
    """A `SharedMedium` over a `FakeDatabase`."""

    is_shared: ClassVar = True

    def __init__(self, database: FakeDatabase) -> None:
        self._database = database
        self._is_connected = True

    def write_if(
        self, records: Sequence[Record], mark: HeadMark, condition: GroupCondition, /
    ) -> None:
        """Write records if the condition holds."""
        database = self._database
        assert self._is_connected
        database.before_write()
        with database.guard:
            assert mark.seq + 1 == len(database.records) + len(records)
            unknown = database.unknown.pop(0) if database.unknown else None
            if unknown is not False:
                if not database.holds(condition):
                    raise GroupRefusedError
                database.records += records
            if unknown is not None:
                self._is_connected = False
                raise MediumError(Cause.WRITE)

    def reconnect(self) -> None:
        """Connect again."""
        self._is_connected = True

    def standing(self, first_seq: int, /) -> list[Record]:
        """Return the records that stand from a record on."""
        return self._database.records[first_seq:]

    def write(self, records: Sequence[Record], mark: HeadMark, /) -> None:
        """Write without a condition: nobody does."""
        raise AssertionError

    def heal(self, tail: Tail, cause: Cause, /) -> None:
        """Write again without a condition: nobody does."""
        raise AssertionError

    def prepare_sync(self, mark: HeadMark, /) -> None:
        """Do nothing."""

    def sync(self) -> None:
        """Do nothing."""

    def due(self) -> float:
        """Return that nothing is due."""
        return float("inf")

    def tidy(self) -> None:
        """Do nothing."""

    def finish(self, mark: HeadMark, /) -> None:
        """Check where the log ends."""
        assert mark.seq + 1 == len(self._database.records)

    def read(self, start_seq: int, limit: int, /) -> list[bytes]:
        """Return records."""
        found = self._database.records[start_seq : start_seq + limit]
        return [stored(record) for record in found]

    def boundary(self, seq: int, /) -> int:
        """Return the same."""
        return seq

    def stage(self, next_seq: int, lines: Sequence[bytes], /) -> None:
        """Do nothing."""

    def adopt_with(
        self, record_seq: int, next_seq: int, adopted: Callable[[], None], /
    ) -> None:
        """Do nothing."""

    def adopt(self) -> None:
        """Do nothing."""

    def settle(self) -> None:
        """Do nothing."""

    @contextmanager
    def open_baseline(
        self, next_seq: int, /
    ) -> Iterator[Callable[[], Iterable[bytes]]]:
        """Give no lines."""
        yield list

    def remove(self, first_seq: int, /) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""


class FakeView:
    """
    A `ClusterView` over a `FakeDatabase`.

    Attributes:
        node: Name of the node.
        epoch: The epoch that it has.
        position: Newest change that it has applied.
        on_change: Called for each change that is applied, before the position moves.
        ends: Where the log ended after each group.
    """

    node = "node-1"

    def __init__(self, database: FakeDatabase) -> None:
        self._database = database
        self.epoch = database.epoch
        self.position = FeedPosition(0, head_at(0))
        self.on_change: Callable[[str | None], None] = lambda _: None
        self.ends: list[int] = []

    def written(self, mark: HeadMark) -> None:
        """Note where the log ends."""
        self.ends.append(mark.seq)

    def catch_up(self) -> None:
        """Apply the changes."""
        with self._database.guard:
            self._check()
            first = self.position.revision + 1
            for revision, subject in enumerate(self._database.changes[first:], first):
                self.on_change(subject)
                self.position = FeedPosition(revision, head_at(revision))

    def renew(self) -> None:
        """Raise the epoch."""
        with self._database.guard:
            self._check()
            self._database.epoch += 1
            self.epoch = self._database.epoch

    def _check(self) -> None:
        if self._database.is_fenced:
            raise UnavailableError("The node was fenced.")


def open_shared_log(database: FakeDatabase, view: FakeView) -> SharedAuditLog:
    """Begin the log of a node."""
    given = options()
    head = StoredHead(given.new_log_id(), 0, HeadMark())
    recovered = RecoveredLog(head, LogEnd(HeadMark()), None)
    return SharedAuditLog(FakeMedium(database), NoReserve(), recovered, given, view)
