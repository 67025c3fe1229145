# SPDX-License-Identifier: MIT
"""
Segment scan: reads a segment and checks its end.

Only a crash may leave a torn tail. Bytes before the head mark, after a clean stop, or
with a complete record in them were not torn by a crash.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Final

from hsm_core._internal.audit.chain import Follower
from hsm_core._internal.audit.head_mark import HeadMark
from hsm_core._internal.audit.record import (
    FRAME,
    MAX_LINE_BYTES,
    Reason,
    decode_event,
    leaf_hash,
    tampered,
)
from hsm_core._internal.lib import encoding
from hsm_core.errors import AuditTamperedError, MalformedError
from hsm_core.model import AuditEvent

MAX_TORN_BYTES: Final = 64 * 1024 * 1024
"""Longest tail that a crash can tear: the most that waits to be written."""

_START: Final = b'{"event":{"format":'
_END: Final = re.compile(rb',"mac":"[0-9a-f]{64}"\}')
_CHUNK: Final = 64 * 1024


@dataclass(frozen=True, slots=True)
class Scan:
    """
    Result of scanning a segment.

    Attributes:
        end: Number of bytes with good records.
        error: Fault of the bytes after them, or None at the end of file.
        unterminated: The last good record lacks its newline.
    """

    end: int
    error: AuditTamperedError | None = None
    unterminated: bool = False


def scan_segment(
    file: BinaryIO,
    follower: Follower,
    visit: Callable[[AuditEvent, int], None],
    *,
    until: int | None = None,
) -> Scan:
    """
    Follow the records of one segment, line by line.

    Args:
        file: The segment, at its start.

        follower: Stands where the segment should begin.

        visit: Called with each good event and the offset of its line.

        until: First record of the next segment, which takes precedence: later records
            in this segment are ignored.
    """
    end = 0
    while follower.seq + 1 != until and (line := file.readline(MAX_LINE_BYTES + 1)):
        whole = line.endswith(b"\n")
        if not whole and not _may_lack_newline(follower):
            return Scan(end, tampered(Reason.TORN, follower.seq + 1))
        try:
            event = follower.follow(line[:-1] if whole else line)
        except AuditTamperedError as error:
            torn = tampered(Reason.TORN, follower.seq + 1)
            return Scan(end, error if whole else torn)
        visit(event, end)
        end += len(line)
        if not whole:
            return Scan(end, unterminated=True)
    return Scan(end)


def _may_lack_newline(follower: Follower) -> bool:
    return follower.mark is None or follower.mark.seq <= follower.seq


def judge_end(file: BinaryIO, scan: Scan, follower: Follower) -> int:
    """
    Check whether a crash explains the end of the live segment.

    Args:
        file: The live segment.

        scan: Result of scanning it.

        follower: Where that led, with the head mark, if there is one to trust.

    Returns:
        How many bytes after the last good record are torn.

    Raises:
        AuditTamperedError: No crash leaves that.
    """
    mark = follower.mark or HeadMark()
    if scan.error is None:
        if follower.seq < mark.seq:
            raise tampered(Reason.SHORTER, follower.seq + 1)
        if mark.clean and follower.seq > mark.seq:
            raise tampered(Reason.AFTER_CLEAN, mark.seq + 1)
        return 0
    if mark.clean or follower.seq < mark.seq:
        raise scan.error
    file.seek(scan.end)
    tail = file.read(MAX_TORN_BYTES + 1)
    if len(tail) > MAX_TORN_BYTES or _holds_record(tail, follower):
        raise scan.error
    return len(tail)


def _holds_record(tail: bytes, follower: Follower) -> bool:
    # A newline that was changed joins two records, so lines alone are not enough; and
    # no text inside an event can hold the start of another, its quotes being escaped.
    before = 0
    for found in _END.finditer(tail):
        start = tail.rfind(_START, before, found.start())
        if start >= 0 and follower.is_record(tail[start : found.end()]):
            return True
        before = found.end()
    return False


def claimed_seq(line: bytes) -> int | None:
    """Return a line's sequence number, unauthenticated; None if it is not an event."""
    event = _claimed(line)
    return None if event is None else event.seq


def is_chain(lines: Sequence[bytes], leaf: str) -> bool:
    """Return whether lines, without newline, lead to the one of this leaf hash."""
    for line in reversed(lines):
        event = _claimed(line)
        if event is None or leaf_hash(line) != leaf:
            return False
        leaf = event.prev
    return True


def _claimed(line: bytes) -> AuditEvent | None:
    try:
        return decode_event(encoding.split(FRAME, line)[0])
    except MalformedError:
        return None


def first_seq(file: BinaryIO) -> int | None:
    """Return the sequence number in the first line of a segment, if it is complete."""
    line = nth_line(file, 0)
    return None if line is None else claimed_seq(line)


def begins(file: BinaryIO | None, follower: Follower, otherwise: int) -> int:
    """
    Return the first record of an audit log that consists of this segment.

    Args:
        file: The segment, or None if there is none.

        follower: Tells records of the trail.

        otherwise: Where it should begin if it doesn't begin with one of those.
    """
    line = nth_line(file, 0) if file else None
    if line is None or not follower.is_record(line):
        return otherwise
    seq = claimed_seq(line)
    return otherwise if seq is None else seq


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


def nth_line(file: BinaryIO, position: int) -> bytes | None:
    """Return a complete line of a file by its index from 0, or None."""
    file.seek(0)
    for _ in range(position):
        file.readline(MAX_LINE_BYTES + 1)
    line = file.readline(MAX_LINE_BYTES + 1) if position >= 0 else b""
    return line[:-1] if line.endswith(b"\n") else None
