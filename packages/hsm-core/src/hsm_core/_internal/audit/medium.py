# SPDX-License-Identifier: MIT
"""
Audit medium, the groups of records that it writes, their tickets, and sync times.

One thread writes at a time: a caller, or the flusher's; only the latter syncs. Any
thread reads what was written. A medium decides nothing: what is said when, and what
happens after a failure, is the flusher's business.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from enum import StrEnum
from itertools import accumulate
from typing import ClassVar, Final, Protocol, TypeGuard

import msgspec

from hsm_core._internal.audit.facts import Record
from hsm_core._internal.audit.head_mark import HeadMark
from hsm_core._internal.lib.silence import pauses
from hsm_core.errors import AuditUnavailableError
from hsm_core.operations import SyncTimes


class Cause(StrEnum):
    """Cause of an audit log outage, in the status and in the record of its end."""

    FULL = "full"
    WRITE = "write"
    SYNC = "sync"
    MOVED = "moved"
    HANGING = "hanging"

    @property
    def sentence(self) -> str:
        """Message for callers."""
        return _SENTENCES[self]


_SENTENCES: Final[Mapping[Cause, str]] = {
    Cause.FULL: "The disk is full: the audit log can't be written.",
    Cause.WRITE: "The audit log can't be written.",
    Cause.SYNC: "The audit log can't be synced to disk.",
    Cause.MOVED: "The audit log's file was moved, removed or altered.",
    Cause.HANGING: "The audit log was not written in time.",
}


class MediumError(AuditUnavailableError):
    """
    A medium could not do what it was told.

    Attributes:
        cause: What it suffers from. After `Cause.SYNC` nothing on the same handle can
            be called durable any more.
    """

    def __init__(self, cause: Cause) -> None:
        super().__init__(cause.sentence)
        self.cause = cause


class GroupRefusedError(AuditUnavailableError):
    """
    Nothing of a group was written: its node was fenced, or a key of it has changed.

    The log ends where it did before. Uses must be decided again.
    """


class GroupCondition(msgspec.Struct, frozen=True, kw_only=True):
    """
    Condition of a group of records in a log of a cluster.

    Attributes:
        node: Node that writes the log; it must not have been fenced.
        epoch: Its epoch.
        revision: Newest change that it had applied when it decided the uses.
        head: Head of the changes at that revision.
        subjects: Keys and credentials that no later change may be about.
    """

    node: str
    epoch: int
    revision: int
    head: bytes
    subjects: Sequence[str] = ()


class Tail(msgspec.Struct, frozen=True):
    """
    Records that are not known to be durable, in order, and where the log ends then.

    Attributes:
        first_seq: Sequence number of the first one; one after the newest durable one.
    """

    records: Sequence[Record]
    first_seq: int
    mark: HeadMark


class BaselineStore(Protocol):
    """Records and baselines of an audit log, as a prune changes them."""

    def boundary(self, seq: int, /) -> int:
        """Return the last record up to *seq* at which kept records may begin."""
        ...

    def stage(self, next_seq: int, lines: Sequence[bytes], /) -> None:
        """
        Store the baseline of the records before *next_seq*; it does not count yet.

        Raises:
            AuditUnavailableError: It can't be written; what is there is removed later.
        """
        ...

    def adopt_with(
        self, record_seq: int, next_seq: int, adopted: Callable[[], None], /
    ) -> None:
        """
        Let the staged baseline count from the record of its prune on.

        Called before that record is written. A medium that can't do both in one step
        does nothing: opening finds the record.

        Args:
            record_seq: Sequence number of the record.

            next_seq: First record to keep.

            adopted: To be called once both are written.
        """
        ...

    def adopt(self) -> None:
        """
        Replace the baseline by the staged one, whose record is durable.

        Raises:
            AuditUnavailableError: It failed; to be tried again.
        """
        ...

    def settle(self) -> None:
        """
        Make the replacement durable.

        Raises:
            AuditUnavailableError: It failed; to be tried again.
        """
        ...

    def open_baseline(
        self, next_seq: int, /
    ) -> AbstractContextManager[Callable[[], Iterable[bytes]]]:
        """
        Open the baseline that counts; each call returns its lines from the first on.

        Raises:
            AuditTamperedError: It is missing.
            AuditUnavailableError: It can't be read.
        """
        ...

    def remove(self, first_seq: int, /) -> None:
        """
        Remove the records before *first_seq*, and baselines that do not count.

        Raises:
            AuditUnavailableError: It failed; to be tried again.
        """
        ...


class AuditMedium(BaselineStore, Protocol):
    """
    Where the records of one open log go.

    Attributes:
        is_shared: Whether it is a `SharedMedium`.
    """

    is_shared: ClassVar[bool]

    def write(self, records: Sequence[Record], mark: HeadMark, /) -> None:
        """
        Append records and let readers see them; a kill of the process can't undo it.

        Args:
            records: The next ones.

            mark: Where the log ends with them.

        Raises:
            MediumError: They may have been written in part, or wholly.
        """
        ...

    def prepare_sync(self, mark: HeadMark, /) -> None:
        """
        Note that the next sync makes durable what was written so far, up to *mark*.

        Raises:
            MediumError: What was written is not where it should be.
        """
        ...

    def sync(self) -> None:
        """
        Make what was noted durable, then store its mark; others may write meanwhile.

        Raises:
            MediumError: It may not be durable.
        """
        ...

    def due(self) -> float:
        """Return the instant of ``time.monotonic()`` at which `tidy` is due, or inf."""
        ...

    def tidy(self) -> None:
        """
        Do what may wait, such as making the head mark itself durable.

        All that was written is durable, and nobody writes meanwhile.

        Raises:
            MediumError: It failed.
        """
        ...

    def heal(self, tail: Tail, cause: Cause, /) -> None:
        """
        After a failure: make everything up to the end of *tail* durable.

        What was durable stays as it is; what was written and is not durable is written
        again, never over a handle whose sync has failed. May be tried any number of
        times, also after a try that was interrupted.

        Raises:
            MediumError: It still can't be; nothing durable was lost.
        """
        ...

    def finish(self, mark: HeadMark, /) -> None:
        """
        Note that the log ends here, in order; all of it is durable.

        Raises:
            MediumError: It may not be.
        """
        ...

    def read(self, start_seq: int, limit: int, /) -> list[bytes]:
        """
        Return up to *limit* written lines from *start_seq* on, without newline.

        Raises:
            AuditUnavailableError: They can't be read.
            AuditTamperedError: Fewer are there than were written.
        """
        ...

    def close(self) -> None:
        """Release handles; readers may go on where they can."""
        ...


class SharedMedium(AuditMedium, Protocol):
    """
    Medium of a cluster's log, in the database in which other nodes change keys.

    Only its node writes a log. What was written is durable at once.
    """

    def write_if(
        self, records: Sequence[Record], mark: HeadMark, condition: GroupCondition, /
    ) -> None:
        """
        Append records in one transaction if a condition holds when it begins.

        Raises:
            GroupRefusedError: It does not hold; nothing was written.
            MediumError: It is not known whether they were written.
        """
        ...

    def reconnect(self) -> None:
        """
        Connect again, after a write whose outcome is unknown.

        Raises:
            MediumError: The database can't be reached.
        """
        ...

    def standing(self, first_seq: int, /) -> list[Record]:
        """
        Return the records from *first_seq* on, as `write` gets them, and go on there.

        Nothing may be under way any more: the node's epoch was raised.

        Raises:
            MediumError: They can't be read.
            AuditTamperedError: They are damaged.
        """
        ...


def is_shared(medium: AuditMedium) -> TypeGuard[SharedMedium]:
    """Return whether other nodes change what the records of a medium rest on."""
    return medium.is_shared


class Reserve(Protocol):
    """Disk space kept back for the records that matter most when the disk is full."""

    @property
    def held(self) -> bool:
        """Whether the space is reserved now."""
        ...

    def take(self) -> bool:
        """Allocate what is missing; return whether all of it is held now."""
        ...

    def give_up(self) -> bool:
        """Free the space; return whether any was held, so that a retry may help."""
        ...

    def close(self) -> None:
        """Close the file, which keeps its space for the next start."""
        ...


SYNC_BOUNDS_SECONDS: Final = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05),
    *(0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
)
"""Buckets of the histogram of sync durations, in seconds."""


def as_unavailable(error: BaseException) -> AuditUnavailableError:
    """Return the error for one who waits: what the medium says stays inside."""
    if isinstance(error, GroupRefusedError):
        return GroupRefusedError(str(error))
    is_ours = isinstance(error, AuditUnavailableError)
    return AuditUnavailableError(str(error) if is_ours else "")


class Ticket:
    """
    The ticket that every append of a group shares.

    Args:
        timeout_seconds: How long `wait` waits if it isn't told.
    """

    __slots__ = ("_callbacks", "_done", "_error", "_guard", "_timeout", "_waiters")

    def __init__(self, timeout_seconds: float) -> None:
        self._timeout = timeout_seconds
        self._guard = threading.Lock()
        self._done = False
        self._error: BaseException | None = None
        self._waiters = deque[threading.Lock]()
        self._callbacks = deque[Callable[[BaseException | None], None]]()

    @classmethod
    def failed(cls, error: BaseException) -> Ticket:
        """Return the ticket of records that could not be written."""
        ticket = cls(0.0)
        ticket.complete(error)
        return ticket

    def wait(self, timeout: float | None = None) -> None:
        """
        Block until the records are as durable as the mode says.

        Args:
            timeout: In seconds; None is the log's own limit.

        Raises:
            AuditUnavailableError: They can't be written, or not within the limit.
        """
        # A bare lock for each waiter costs a third of what `threading.Event` does.
        waiter = threading.Lock()
        waiter.acquire()
        with self._guard:
            if not self._done:
                self._waiters.append(waiter)
            done = self._done
        if not done:
            limit = self._timeout if timeout is None else max(timeout, 0)
            if not any(waiter.acquire(timeout=pause) for pause in pauses(limit)):
                raise AuditUnavailableError("The audit log was not written in time.")
        error = self._error
        if error is not None:
            raise as_unavailable(error) from error

    def add_done_callback(
        self, callback: Callable[[BaseException | None], None], /
    ) -> None:
        """Call *callback* once, here or from the writing thread; it must not raise."""
        with self._guard:
            if not self._done:
                self._callbacks.append(callback)
                return
        callback(self._error)

    def complete(self, error: BaseException | None = None) -> None:
        """
        Mark the records as durable, or as lost; only the first time counts.

        If memory ran out midway, the next call tells those who still wait.
        """
        with self._guard:
            if not self._done:
                self._error = error
                self._done = True
        while self._waiters:
            self._waiters.popleft().release()
        while self._callbacks:
            # The writing thread must outlive a callback that breaks its promise.
            with suppress(Exception):
                self._callbacks.popleft()(self._error)


class DoneTicket:
    """Ticket of records that are as durable as they will be."""

    __slots__ = ()

    def wait(self, timeout: float | None = None) -> None:
        """Return."""

    def add_done_callback(
        self, callback: Callable[[BaseException | None], None], /
    ) -> None:
        """Call *callback* here."""
        callback(None)


DONE: Final = DoneTicket()


class Group:
    """
    Records that are synced together.

    Args:
        timeout_seconds: How long its tickets wait if they aren't told.

    Attributes:
        written: Done when they are written.
        synced: Done when they are durable.
        records: The records.
        size: Bytes that they take.
        must_sync: Somebody waits for the sync.
        is_lazy: Nobody cares when it is synced.
        mark: The state of the log after them; set when the group is taken.
    """

    def __init__(self, timeout_seconds: float) -> None:
        self.written = Ticket(timeout_seconds)
        self.synced = Ticket(timeout_seconds)
        self.records: list[Record] = []
        self.size = 0
        self.must_sync = False
        self.is_lazy = True
        self.mark = HeadMark()

    def add(self, records: list[Record]) -> None:
        """Add the records of one append."""
        size = self.size
        for facts, entry in records:
            size += len(facts) + len(entry)
        # All of it or, without memory, nothing.
        self.records += records
        self.size = size

    @property
    def newest(self) -> Record | None:
        """The last record."""
        return self.records[-1] if self.records else None

    def complete(self, error: BaseException | None = None) -> None:
        """Complete both tickets."""
        self.written.complete(error)
        self.synced.complete(error)


class SyncClock:
    """Counts syncs by how long they took. One thread counts, any thread may look."""

    def __init__(self) -> None:
        self._counts = [0] * (len(SYNC_BOUNDS_SECONDS) + 1)
        self._seconds = 0.0

    def count(self, seconds: float) -> None:
        """Count one sync."""
        self._counts[bisect_left(SYNC_BOUNDS_SECONDS, seconds)] += 1
        self._seconds += seconds

    def times(self) -> SyncTimes:
        """Return what was counted."""
        sums = list(accumulate(self._counts))
        return SyncTimes(
            count=sums[-1],
            seconds=self._seconds,
            bounds_seconds=SYNC_BOUNDS_SECONDS,
            within=tuple(sums[:-1]),
        )
