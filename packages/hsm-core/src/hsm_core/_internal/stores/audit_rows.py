# SPDX-License-Identifier: MIT
"""
Audit log in the tables of a database, whichever database it is.

``records`` holds the very lines that a log in files has, by their sequence number;
``facts`` holds the facts lines, by the record that they stand before. Every transaction
that adds records writes the head mark too, so the last record is the one that the mark
names, and there is no torn tail.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final, NamedTuple, Protocol

from hsm_core._internal.audit.baseline import Baseline, check_baseline
from hsm_core._internal.audit.chain import Follower
from hsm_core._internal.audit.facts import SPAN, FactsTrack, Record, named_by
from hsm_core._internal.audit.head_mark import HeadCodec, HeadMark, StoredHead
from hsm_core._internal.audit.medium import Cause, MediumError, Tail
from hsm_core._internal.audit.reasons import Reason, tampered
from hsm_core._internal.audit.record import RecordCodec, decode_entry
from hsm_core._internal.audit.uses import NO_USE, Line, lines_of, uses_from
from hsm_core._internal.audit.verify import UseFollower, check_end
from hsm_core._internal.lib.failpoints import failpoint
from hsm_core.errors import AuditTamperedError

HEADER_BYTES: Final = 64
"""Of a stored head mark: log id and key check value; one slot follows."""

_LINES_AT_ONCE: Final = 128
"""Rows that are verified together: short enough for the limit of SQLite's values."""


class Block(NamedTuple):
    """
    Records that were read together.

    Attributes:
        size: How many.
        first: The first seq among them; None for none.
        last: The last one.
        text: Their entries, with a newline between each two.
        facts: Those that a facts line stands before.
    """

    size: int
    first: int | None
    last: int | None
    text: bytes
    facts: list[int]


class LogTables(Protocol):
    """
    Rows of one audit log. Nothing of them is trusted.

    Unless they say otherwise, methods raise the errors of the database's driver.
    """

    def heads(self) -> list[tuple[int, object]]:
        """Return up to two rows of the head mark: number, which is 0, and content."""
        ...

    def first(self) -> int | None:
        """Return the lowest sequence number of a record; None if there is none."""
        ...

    def last(self) -> int | None:
        """Return the highest sequence number of a record; None if there is none."""
        ...

    def rows(
        self, start_seq: int, limit: int = -1, /
    ) -> Generator[tuple[int, bytes], None, None]:
        """
        Yield records in order of seq, from *start_seq* on.

        Args:
            start_seq: Rows before it are left out.

            limit: How many at most; a negative number gives all.

        Raises:
            AuditTamperedError: A row holds no bytes.
        """
        ...

    def joined(self, seq: int, /) -> tuple[int, object, bytes | None] | None:
        """
        Return the first record from *seq* on: its seq, entry, and facts line if any.

        Raises:
            AuditTamperedError: The database is damaged.
            AuditUnavailableError: It can't be read now.
        """
        ...

    def block(self, seq: int, count: int, /) -> Block | None:
        """Return up to *count* records from *seq* on; None if they can't be read so."""
        ...

    def facts(self, first: int, last: int, /) -> Iterable[tuple[int, bytes]]:
        """Return the facts lines before records *first* to *last*, in order."""
        ...

    def facts_at(self, seq: int, /) -> bytes:
        """
        Return the facts line before a record that has one.

        Raises:
            AuditTamperedError: The database is damaged.
            AuditUnavailableError: It can't be read now.
        """
        ...

    def orphan(self, start_seq: int, /) -> int | None:
        """Return the first facts line from *start_seq* on that serves no record."""
        ...

    def pruned(self) -> tuple[int, int] | None:
        """Return the first record that was kept, and the record of that prune."""
        ...

    def baseline(self, next_seq: int, /) -> Iterable[tuple[int, object]]:
        """Return the lines of a baseline in order, each with its number."""
        ...


CHUNK: Final = 4000
"""Rows that a prune writes or removes in one transaction, or that are read at once."""


def head_row(codec: HeadCodec, counter: int, mark: HeadMark) -> bytes:
    """Return the content of a stored head mark."""
    return codec.header + codec.slot(counter, mark)[1]


def read_head(tables: LogTables, hmac_key: bytes) -> StoredHead:
    """
    Authenticate the head mark and return it.

    Raises:
        WrongAuditKeyError: It was written with another HMAC key.
        AuditTamperedError: It is missing, or was changed by other means than ours.
    """
    rows = tables.heads()
    if not rows:
        raise tampered(Reason.HEAD_MISSING, 0)
    content = rows[0][1]
    if len(rows) > 1 or rows[0][0] != 0 or not isinstance(content, bytes):
        raise tampered(Reason.HEAD_DAMAGED, 0)
    header, slot = content[:HEADER_BYTES], content[HEADER_BYTES:]
    return HeadCodec.authenticate(header, {-1: slot}, hmac_key)


def read_earlier(tables: LogTables, seq: int) -> FactsTrack:
    """Return the facts lines before a record that may serve it or later ones."""
    track = FactsTrack(keeps_lines=False)
    for first, line in _facts_before(tables, seq):
        track.take_earlier(line, first)
    return track


def written_facts(tables: LogTables, seq: int) -> FactsTrack:
    """Return the same lines, unchecked; readers check them, and writers need not."""
    track = FactsTrack(keeps_lines=False)
    track.note(_facts_before(tables, seq))
    return track


def _facts_before(tables: LogTables, seq: int) -> Iterator[tuple[int, bytes]]:
    # Not all at once: together they may take tens of megabytes.
    for first in range(max(seq - SPAN + 1, 0), seq, CHUNK):
        yield from tables.facts(first, min(first + CHUNK, seq) - 1)


def missing_records(tables: LogTables, tail: Tail) -> Sequence[Record]:
    """
    Return what a log lacks of a tail.

    Raises:
        AuditTamperedError: It holds something else.
    """
    found = 0
    for found, (seq, line) in enumerate(tables.rows(tail.first_seq), 1):
        if found > len(tail.records) or tail.records[found - 1][1] != line + b"\n":
            raise tampered(Reason.CHAIN, seq)
    last = tables.last()
    if last is not None and last != tail.first_seq + found - 1:
        raise tampered(Reason.SEQUENCE, tail.first_seq + found)
    return tail.records[found:]


def read_baseline(
    tables: LogTables, log_id: str, hmac_key: bytes | None
) -> Baseline | None:
    """
    Return what is kept of pruned records, checked, with the record of the prune.

    Args:
        tables: Of the log.

        log_id: The log; empty takes its own word.

        hmac_key: None leaves MACs unchecked.

    Raises:
        AuditTamperedError: It was changed, or no record tells of the prune.
    """
    found = tables.pruned()
    if found is None:
        return None
    next_seq, record_seq = found
    lines = _baseline_lines(tables, next_seq)
    baseline = check_baseline(lines, log_id=log_id, hmac_key=hmac_key)
    if baseline.header.next_seq != next_seq:
        raise tampered(Reason.BASELINE, 0)
    codec = RecordCodec(baseline.header.log_id, hmac_key)
    for seq, line in tables.rows(record_seq, 1):
        if seq == record_seq and codec.is_record(line):
            entry = decode_entry(line)
            if entry is not None and entry.detail == baseline.detail:
                return baseline
    raise tampered(Reason.PRUNED, 0)


def _baseline_lines(tables: LogTables, next_seq: int) -> Iterator[bytes]:
    for number, (place, line) in enumerate(tables.baseline(next_seq)):
        if place != number or not isinstance(line, bytes):
            raise tampered(Reason.BASELINE, 0)
        yield line


class StoredRows:
    """
    A `StoredLog` in a database.

    Args:
        tables: Its rows.

        hmac_key: Key of the audit log; None leaves head mark and MACs unchecked.

    Attributes:
        facts: Facts lines up to the record that was read last.
        has_leftovers: Records before the first one that counts are still there, because
            their removal was interrupted.

    Raises:
        WrongAuditKeyError: The key is not the log's.
        AuditTamperedError: Head mark or baseline were altered.
    """

    torn_bytes = 0
    follow_uses: UseFollower | None = None

    def __init__(self, tables: LogTables, hmac_key: bytes | None) -> None:
        self._tables = tables
        self._digest, self._line = b"", b""
        self.facts = FactsTrack(keeps_lines=False)
        self.head = None if hmac_key is None else read_head(tables, hmac_key)
        log_id = self.head.log_id if self.head else ""
        self.baseline = read_baseline(tables, log_id, hmac_key)
        covered = self.baseline.header.next_seq if self.baseline else 0
        oldest = tables.first()
        if oldest is not None and oldest < 0:
            raise tampered(Reason.SEQUENCE, 0)
        self.has_leftovers = oldest is not None and oldest < covered
        self.first_seq = max(covered if oldest is None else oldest, covered)

    def lines(self, start_seq: int, /) -> Generator[bytes, None, None]:
        """
        Yield the entries from a record on; see `StoredLog.lines`.

        Raises:
            AuditTamperedError: A row is missing or no line, or the database is damaged.
            AuditUnavailableError: They can't be read now.
        """
        seq = first = start_seq
        lines: list[Line] = []
        self.facts = read_earlier(self._tables, seq)
        while True:
            if self.follow_uses is not None:
                if seq == first + len(lines):
                    first, lines = seq, self._block(seq)
                followed = self.follow_uses(uses_from(lines, seq - first), self.facts)
                seq += followed
                if followed:
                    continue
            row = self._tables.joined(seq)
            if row is None:
                return
            found, entry, facts = row
            if not isinstance(entry, bytes):
                raise tampered(Reason.FRAMING, found)
            if found != seq:
                raise tampered(Reason.SEQUENCE, seq)
            if facts is not None:
                self.facts.take(facts, seq)
            yield entry
            seq += 1

    def joined(self, entry: bytes, /) -> bytes:
        """
        Return the record of the entry that was yielded last; see `StoredLog.joined`.

        Facts lines are read again: those of one segment fit in memory, and those of a
        database may not.
        """
        digest = named_by(entry)
        if not digest:
            return entry
        if digest != self._digest:
            self._line = self._tables.facts_at(self.facts.first_of(digest))
            self._digest = digest
        return b"%b\n%b" % (self._line, entry)

    def _block(self, seq: int) -> list[Line]:
        """Return rows from *seq* on as lines; those to be read by themselves empty."""
        found = self._tables.block(seq, _LINES_AT_ONCE)
        if found is None:
            # The row that can't be read is found when all are read by themselves.
            return [NO_USE] * _LINES_AT_ONCE
        count, first, last, text, facts = found
        lines = lines_of(text + b"\n") if count else []
        if len(lines) != count or (first, last) != (seq, seq + count - 1):
            lines = [NO_USE] * max(count, 1)
        for before in facts:
            lines[before - seq] = NO_USE
        return lines

    def anchors(self, before: int, /) -> Iterator[tuple[int, bytes]]:
        """Yield the line before the first one that must be read."""
        if before > self.first_seq:
            for seq, line in self._tables.rows(before - 1, 1):
                if seq == before - 1:
                    yield seq, line

    def judge_end(self, follower: Follower, error: AuditTamperedError | None) -> None:
        """
        Require that the log ends with the record that the head mark names.

        Raises:
            AuditTamperedError: It does not.
        """
        mark = follower.mark
        if mark is not None:
            check_end(follower, None if follower.seq > mark.seq else error)
            if follower.seq > mark.seq:
                raise tampered(Reason.AFTER_MARK, mark.seq + 1)
        if error is not None:
            raise error
        orphan = self._tables.orphan(self.first_seq)
        if orphan is not None:
            raise tampered(Reason.FACTS, orphan)

    def has_grown(self, _follower: Follower, /) -> bool:
        """Return False: what is read does not change meanwhile."""
        return False


class _Adoption(NamedTuple):
    """Baseline that counts as soon as the record of its prune is written."""

    record_seq: int
    next_seq: int
    adopted: Callable[[], None]


class DatabaseMedium(ABC):
    """
    What the audit media of databases share: head mark, facts lines and baselines.

    Args:
        hmac_key: Key of the log.

        stored: The head mark as it is in the database.
    """

    def __init__(self, hmac_key: bytes, stored: StoredHead) -> None:
        self._hmac_key = hmac_key
        self._codec = HeadCodec(hmac_key, stored.log_id)
        self._log_id = stored.log_id
        self._counter = stored.counter
        self._written = stored.mark
        self._adoption: _Adoption | None = None
        self._facts: FactsTrack | None = None

    def _head(self, mark: HeadMark) -> bytes:
        """Return the content of the next stored head mark."""
        return head_row(self._codec, self._counter + 1, mark)

    def _read_head(self, tables: LogTables, durable_seq: int) -> StoredHead:
        """
        Return the stored head mark.

        Raises:
            MediumError: The log is another one, or lacks what was durable.
        """
        stored = read_head(tables, self._hmac_key)
        if stored.log_id != self._log_id or stored.mark.seq < durable_seq:
            raise MediumError(Cause.MOVED)
        return stored

    def _track(self, tables: LogTables) -> FactsTrack:
        """Return the facts lines that the database has."""
        if self._facts is None:
            self._facts = written_facts(tables, self._written.seq + 1)
        return self._facts

    def _adopted_by(self, mark: HeadMark) -> tuple[int, int] | None:
        """Return the row ``pruned`` if *mark* covers the record of a prune."""
        adoption = self._adoption
        if adoption is None or adoption.record_seq > mark.seq:
            return None
        return adoption.next_seq, adoption.record_seq

    def _wrote(self, mark: HeadMark) -> None:
        self._written = mark
        adoption = self._adoption
        if adoption is not None and adoption.record_seq <= mark.seq:
            self._adoption = None
            adoption.adopted()

    def boundary(self, seq: int, /) -> int:
        """Return *seq*: every record can be removed by itself."""
        return seq

    def stage(self, next_seq: int, lines: Sequence[bytes], /) -> None:
        """
        Store a baseline that does not count yet.

        Raises:
            AuditUnavailableError: It can't be written; what is there is removed later.
        """
        for start in range(0, len(lines), CHUNK):
            self._add_baseline(next_seq, start, lines[start : start + CHUNK])
        failpoint("audit.prune.after_stage")

    @abstractmethod
    def _add_baseline(self, next_seq: int, number: int, lines: Sequence[bytes]) -> None:
        """Add lines of a baseline, the first of which has this number."""

    def adopt_with(
        self, record_seq: int, next_seq: int, adopted: Callable[[], None], /
    ) -> None:
        """Adopt the baseline in the transaction that writes the record of its prune."""
        self._adoption = _Adoption(record_seq, next_seq, adopted)

    def adopt(self) -> None:  # noqa: B027 (nothing is left to do)
        """Do nothing: the record's transaction did it."""

    def settle(self) -> None:  # noqa: B027 (nothing is left to do)
        """Do nothing: the record's transaction was durable."""

    @contextmanager
    def open_baseline(
        self, next_seq: int, /
    ) -> Iterator[Callable[[], Iterable[bytes]]]:
        """
        Read the baseline that counts, before a prune removes it.

        Raises:
            AuditTamperedError: The database is damaged.
            AuditUnavailableError: It can't be read.
        """
        lines = self._baseline(next_seq)
        yield lambda: iter(lines)

    @abstractmethod
    def _baseline(self, next_seq: int) -> list[bytes]:
        """Return the lines of a baseline."""
