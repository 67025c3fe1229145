# SPDX-License-Identifier: MIT
"""
Audit medium: files, or a database.

Only the flusher's thread writes; any thread reads what was written. A medium decides
nothing: what is said when, and what happens after a failure, is the flusher's business.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Final, Protocol

from hsm_core._internal.audit.head_mark import HeadMark
from hsm_core.errors import AuditUnavailableError


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


@dataclass(frozen=True, slots=True)
class Tail:
    """
    Lines that are not known to be durable, in order, and where the log ends then.

    Attributes:
        first_seq: Sequence number of the first line; one after the newest durable one.
    """

    lines: Sequence[bytes]
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
    """Where the lines of one open log go, each with its newline."""

    def write(self, lines: Sequence[bytes], mark: HeadMark, /, *, sync: bool) -> bool:
        """
        Append lines and let readers see them; a kill of the process can't undo it.

        Args:
            lines: The next lines.

            mark: Where the log ends with them.

            sync: Make them durable too, if one step can do both.

        Returns:
            Whether all that was written so far is durable now.

        Raises:
            MediumError: They may have been written in part, or wholly.
        """
        ...

    def sync(self, mark: HeadMark, /) -> None:
        """
        Make all that was written durable, then note *mark*.

        Raises:
            MediumError: It may not be.
        """
        ...

    def due(self) -> float:
        """Return the instant of ``time.monotonic()`` at which `tidy` is due, or inf."""
        ...

    def tidy(self) -> None:
        """
        Do what may wait, such as making the head mark itself durable.

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
        Make all durable and note that the log ends here, in order.

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
