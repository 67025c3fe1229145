# SPDX-License-Identifier: MIT
"""
Stored segments: the audit log in files, read line by line.

Where two segments overlap, the later one wins from its first record on: the earlier one
was given up after a failed sync, and may hold anything from there on.

Only a crash may leave a torn tail. Bytes before the head mark, after a clean stop, or
with a complete record in them were not torn by a crash.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import BinaryIO, Final, TypeAlias

from hsm_core._internal.audit.baseline import Baseline
from hsm_core._internal.audit.chain import Follower
from hsm_core._internal.audit.facts import MAX_LINE_BYTES, START, FactsTrack
from hsm_core._internal.audit.head_mark import StoredHead
from hsm_core._internal.audit.reasons import Reason, tampered
from hsm_core._internal.audit.record import RecordCodec, claimed_seq
from hsm_core._internal.audit.uses import Line, LineReader
from hsm_core._internal.audit.verify import CheckedAhead, UseFollower, check_end
from hsm_core._internal.stores.filesystem.audit_segments import Segment
from hsm_core.errors import AuditTamperedError

MAX_TORN_BYTES: Final = 64 * 1024 * 1024
"""Longest tail that a crash can tear: the most that waits to be written."""

_CHUNK: Final = 64 * 1024
_MAX_LINE: Final = MAX_LINE_BYTES + 1
_Opener: TypeAlias = Callable[[Path], BinaryIO | None]
_Lines: TypeAlias = Generator[bytes, None, int]
"""Lines; the return value is the sequence number after the last good one."""


class StoredSegments:
    """
    A `StoredLog` in files.

    Args:
        closed: Closed segments, in order.

        live: The live segment, whose content is read from *file*.

        file: The open live segment; None if there is none.

        codec: Format of the records.

        head: Authenticated head mark.

        baseline: Checked baseline.

        open_file: Opens a closed segment; returns None if there is none.

    Attributes:
        closed: Closed segments that count.
        live: The live segment; knows its good lines once they were read.
        unterminated: The last good line of the live segment lacks its newline.
        unmarked: Offset in the live segment of the first record that the mark does not
            know.
        torn_bytes: Length of the torn tail behind the good lines.
        live_seq: First record of the live segment, as it says itself, if it has one.
        facts: Facts lines of the segment that is read.
        ahead: Closed segments that other processes check meanwhile, if any do.
    """

    def __init__(
        self,
        closed: Sequence[Segment],
        live: Segment,
        file: BinaryIO | None,
        codec: RecordCodec,
        *,
        head: StoredHead | None,
        baseline: Baseline | None,
        open_file: _Opener,
    ) -> None:
        covered = baseline.header.next_seq if baseline else 0
        self.head = head
        self.baseline = baseline
        self.closed = [segment for segment in closed if segment.first_seq >= covered]
        self.live = live
        self.unterminated = False
        self.unmarked: int | None = None
        self.torn_bytes = 0
        self.facts = FactsTrack()
        self.follow_uses: UseFollower | None = None
        self.ahead: CheckedAhead | None = None
        self._file = file
        self._codec = codec
        self._open_file = open_file
        self.live_seq = first_seq(file) if file else None
        # Numbers begin at 1, and anywhere in a log whose start was pruned.
        is_pruned = self.closed and baseline is not None
        self._first_number = self.closed[0].number if is_pruned else 1
        self._position = 0
        self._is_whole = True
        self._covered = covered
        live.number = self._first_number + len(self.closed)

    @property
    def first_seq(self) -> int:
        """First record that counts; only a record of this log may name it."""
        if self.closed:
            return self.closed[0].first_seq
        line = nth_entry(self._file, 0) if self._file else None
        is_ours = line is not None and self._codec.is_record(line)
        return max(self.live_seq or 0 if is_ours else 0, self._covered)

    def lines(self, start_seq: int, /) -> Generator[bytes, None, None]:
        """
        Yield the entries from a record on; see `StoredLog.lines`.

        Raises:
            AuditTamperedError: Segments do not join, or a closed one is torn.
            OSError: A segment can't be read.
        """
        seq = yield from self.closed_lines(start_seq)
        yield from self._live_lines(seq)

    def closed_lines(self, start_seq: int) -> _Lines:
        """
        Yield the entries of the closed segments.

        Raises:
            AuditTamperedError: Segments do not join, or one is torn.
            OSError: A segment can't be read.
        """
        seq = start_seq
        while self._position < len(self.closed):
            segment = self.closed[self._position]
            number = self._first_number + self._position
            end = self._end_of(self._position)
            joins = (segment.number, segment.first_seq) == (number, seq)
            joins = joins and (end is None or end > seq)
            file = self._open_file(segment.path) if joins else None
            if file is None:
                raise tampered(Reason.SEGMENT, seq)
            self.facts = FactsTrack()
            skip = None
            if self.ahead is not None and end is not None:
                skip = partial(self.ahead.follow, self._position)
            with file:
                seq = yield from segment_lines(
                    file, seq, end, self.facts, self.follow_uses, skip
                )
            self._position += 1
        return seq

    def joined(self, entry: bytes, /) -> bytes:
        """Return the record of the entry that was yielded last."""
        return self.facts.joined(entry)

    @property
    def is_live(self) -> bool:
        """Whether all closed segments were read."""
        return self._position == len(self.closed)

    def _live_lines(self, seq: int) -> Iterator[bytes]:
        live, file = self.live, self._file
        mark = self.head.mark if self.head else None
        self._is_whole = True
        self.facts.rewind(seq)
        if not live.count:
            self.facts = FactsTrack()
            live.first_seq = seq
            if self.closed:
                self.closed[-1].count = seq - self.closed[-1].first_seq
        if file is None:
            return
        file.seek(live.size)
        reader = LineReader(file)
        size = 0
        while True:
            if not size:
                uses = _follow_uses(reader, self.facts, self.follow_uses)
                live.add(map(len, map(itemgetter(0), uses)))
                seq += len(uses)
            if not (line := reader.readline()):
                break
            size += len(line)
            self._is_whole = line.endswith(b"\n")
            if not self._is_whole and mark is not None and mark.seq >= seq:
                # What was synced was synced with its newline.
                raise tampered(_cut_reason(line), seq)
            if self._is_whole and line.startswith(START):
                self.facts.take(line[:-1], seq)
                continue
            yield line[:-1] if self._is_whole else line
            if self.unmarked is None and mark is not None and mark.seq < seq:
                self.unmarked = live.size
            live.add([size + (not self._is_whole)])
            size = 0
            self.unterminated = not self._is_whole
            seq += 1

    def _end_of(self, position: int) -> int | None:
        """Return the record from which on the next segment wins, if it is known."""
        if position + 1 < len(self.closed):
            return self.closed[position + 1].first_seq
        return self.live_seq

    def anchors(self, before: int, /) -> Iterator[tuple[int, bytes]]:
        """
        Yield the last line of each closed segment, newest first.

        Raises:
            OSError: A segment can't be read.
        """
        if self._names_join():
            for position in range(len(self.closed), 0, -1):
                self._position = position
                line = self._last_line(position - 1)
                if line is not None:
                    yield self.closed[position - 1].first_seq, line
        self._position = 0

    def _names_join(self) -> bool:
        seqs = [segment.first_seq for segment in self.closed]
        if self.live_seq is not None:
            seqs.append(self.live_seq)
        numbers = [segment.number for segment in self.closed]
        expected = range(self._first_number, self._first_number + len(numbers))
        return numbers == list(expected) and seqs == sorted(set(seqs))

    def _last_line(self, position: int) -> bytes | None:
        segment, end = self.closed[position], self._end_of(position)
        file = self._open_file(segment.path)
        if file is None:
            return None
        with file:
            line = last_line(file)
            if end is not None and claimed_seq(line or b"") != end - 1:
                # What comes after belongs to the next segment, which overlaps.
                line = nth_entry(file, end - 1 - segment.first_seq) or line
        return line

    def judge_end(self, follower: Follower, error: AuditTamperedError | None) -> None:
        """
        Decide whether a crash explains the end of the live segment.

        Raises:
            AuditTamperedError: No crash leaves that.
            OSError: It can't be read.
        """
        if error is not None and not self.is_live:
            raise error
        if error is not None and not self._is_whole:
            error = tampered(Reason.TORN, follower.seq + 1)
        if error is None and self.facts.is_waiting:
            error = tampered(Reason.FACTS, follower.seq + 1)
        check_end(follower, error)
        if error is None or self._file is None:
            return
        self._file.seek(self.live.size)
        tail = self._file.read(MAX_TORN_BYTES + 1)
        if len(tail) > MAX_TORN_BYTES or follower.codec.has_record(tail):
            raise error
        self.torn_bytes = len(tail)

    def has_grown(self, _follower: Follower, /) -> bool:
        """Return False: nobody else writes the log."""
        return False


def segment_lines(
    file: BinaryIO,
    seq: int,
    end: int | None,
    facts: FactsTrack,
    follow_uses: UseFollower | None,
    skip: Callable[[], bool] | None = None,
) -> _Lines:
    """
    Yield the entries of a closed segment.

    Args:
        file: The segment, at its start.

        seq: Sequence number of its first entry.

        end: That of the first entry of the next segment, if it is known.

        facts: Takes the facts lines.

        follow_uses: See `StoredLog.follow_uses`.

        skip: Called after the first entry; returns whether all entries up to *end* were
            followed in another way.

    Returns:
        The sequence number after the last good entry.

    Raises:
        AuditTamperedError: The segment is torn.
        OSError: It can't be read.
    """
    reader = LineReader(file)
    while seq != end:
        limit = None if end is None else end - seq
        seq += len(_follow_uses(reader, facts, follow_uses, limit))
        if seq == end or not (line := reader.readline()):
            break
        if not line.endswith(b"\n"):
            raise tampered(_cut_reason(line), seq)
        if line.startswith(START):
            facts.take(line[:-1], seq)
            continue
        yield line[:-1]
        seq += 1
        if skip is not None and end is not None and skip():
            return end
        skip = None
    if facts.is_waiting:
        raise tampered(Reason.FACTS, seq)
    return seq


def _follow_uses(
    reader: LineReader,
    facts: FactsTrack,
    follow_uses: UseFollower | None,
    limit: int | None = None,
) -> list[Line]:
    """Follow the uses that come next, and return them."""
    if follow_uses is None:
        return []
    uses = reader.uses(limit)
    count = follow_uses(uses, facts)
    reader.skip(count)
    return uses[:count]


def _cut_reason(line: bytes) -> Reason:
    """Return the reason against a line without newline, read up to the longest."""
    is_long = len(line) > MAX_LINE_BYTES and line.startswith(START)
    return Reason.FACTS if is_long else Reason.TORN


def first_seq(file: BinaryIO) -> int | None:
    """Return the sequence number of the first entry of a segment, if it is complete."""
    line = nth_entry(file, 0)
    return None if line is None else claimed_seq(line)


def last_line(file: BinaryIO) -> bytes | None:
    """Return the last complete line of a file without its newline, or None."""
    end = file.seek(0, 2)
    tail = b""
    while len(tail) < end and len(tail) <= MAX_LINE_BYTES + 1:
        size = min(_CHUNK, end - len(tail))
        file.seek(end - len(tail) - size)
        tail = file.read(size) + tail
        if b"\n" in tail[:-1]:
            break
    if not tail.endswith(b"\n"):
        return None
    return tail[:-1].rpartition(b"\n")[2]


def nth_entry(file: BinaryIO, position: int) -> bytes | None:
    """Return a complete entry of a segment by its index from 0, or None."""
    file.seek(0)
    while position >= 0 and (line := file.readline(_MAX_LINE)):
        if line.startswith(START) and line.endswith(b"\n"):
            continue
        if position == 0:
            return line[:-1] if line.endswith(b"\n") else None
        position -= 1
    return None
