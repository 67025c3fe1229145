# SPDX-License-Identifier: MIT
"""A log in files: a series of segments, the last of them live."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.core.second_reader.follower import Follower, Log, Mark
from tests.core.second_reader.keys import NOTHING, BadLogError
from tests.core.second_reader.lines import ENTRY, LONGEST
from tests.core.second_reader.marks import baseline_of, check_prune, mark_of

MOST_TORN: Final = 64 * 1024 * 1024
_BEGUN: Final = re.compile(rb'"type":"log-begun","log_id":"([0-9a-f]{32})"')
_BEGIN: Final = re.compile(rb'\{"format":2,"seq":"')
_END: Final = re.compile(rb',"mac":"[0-9a-f]{64}"\}')
_CLOSED: Final = re.compile(r"\.([0-9]{8})\.([0-9]{16})")


@dataclass(frozen=True)
class Segment:
    """
    One file of a log.

    Attributes:
        number: As its name says; of the live one the next.
        start: The first entry, by its name or content; -1 if there is none to tell.
        is_live: Whether it has no closed name.
    """

    content: bytes
    number: int
    start: int
    is_live: bool


def read_files(path: Path, hmac_key: bytes | None) -> Log:
    """
    Read a log in files that nobody writes.

    Args:
        path: Its live segment.

        hmac_key: 32 bytes; None checks what can be checked without.

    Raises:
        BadLogError: It is damaged.
    """
    head = path.with_name(path.name + ".head")
    mark = mark_of(head.read_bytes(), hmac_key) if head.exists() else None
    log_id = mark.log_id if mark else _told_id(path)
    kept = path.with_name(path.name + ".baseline")
    baseline = baseline_of(kept.read_bytes(), hmac_key) if kept.exists() else None
    first = (0, NOTHING)
    if baseline is not None:
        if log_id not in ("", baseline.header["log_id"]):
            raise BadLogError(0, "baseline")
        first = baseline.next_seq, str(baseline.header["last_leaf_hash"])
    counted = mark if hmac_key is not None else None
    follower = Follower(log_id, hmac_key, counted, first)
    segments = _segments(path, first[0])
    for place, segment in enumerate(segments):
        _check_join(follower, segments[:place], segment, is_pruned=baseline is not None)
        follower.begin_segment()
        until = segments[place + 1].start if not segment.is_live else None
        _follow_segment(follower, segment.content, until, counted)
    log = follower.end()
    if baseline is not None:
        check_prune(log, baseline)
    if mark is None and hmac_key is not None:
        # What else is wrong with the log is of more use.
        raise BadLogError(0, "head_missing")
    if counted is None and log.torn_bytes and log.head[0] < 0:
        raise BadLogError(0, "torn")
    return log


def _told_id(path: Path) -> str:
    """Return the log id that entry 0 tells, if it is there; nothing vouches for it."""
    for file in sorted(path.parent.glob(path.name + "*")):
        found = _BEGUN.search(file.read_bytes()) if file.is_file() else None
        if found is not None:
            return found[1].decode()
    return "0" * 32


def _segments(path: Path, first_seq: int) -> list[Segment]:
    """Return the segments that are part of a log, the live one last."""
    found = []
    for file in path.parent.iterdir():
        name = _CLOSED.fullmatch(file.name.removeprefix(path.name))
        if name is None or int(name[2]) < first_seq or not file.is_file():
            continue
        # An interrupted healing leaves the live segment with a closed name beside it.
        if not (path.exists() and file.samefile(path)):
            content = file.read_bytes()
            found.append(Segment(content, int(name[1]), int(name[2]), is_live=False))
    found.sort(key=lambda segment: (segment.number, segment.start))
    live = path.read_bytes() if path.exists() else b""
    entries = filter(None, map(ENTRY.fullmatch, live.split(b"\n")))
    start = next((int(entry[1], 16) for entry in entries), -1)
    number = found[-1].number + 1 if found else 1
    return [*found, Segment(live, number, start, is_live=True)]


def _check_join(
    follower: Follower, before: list[Segment], segment: Segment, *, is_pruned: bool
) -> None:
    """Check that a segment begins where those before it end."""
    seq = follower.next_seq
    if segment.start not in (-1, seq):
        missing = "segment" if before else "pruned"
        raise BadLogError(seq, missing)
    if before and 0 <= segment.start <= before[-1].start:
        raise BadLogError(seq, "segment")
    fits = segment.number == before[-1].number + 1 if before else segment.number == 1
    if not fits and (before or not is_pruned):
        raise BadLogError(seq, "segment")


def _follow_segment(
    follower: Follower, content: bytes, until: int | None, mark: Mark | None
) -> None:
    """
    Follow the lines of a segment, up to the first entry of the next one.

    Args:
        follower: It does.

        content: The segment.

        until: That entry; -1 if nothing tells it; None for the live segment.

        mark: The head mark, if it counts.
    """
    at = 0
    while at < len(content) and follower.next_seq != until:
        begun, seq = at, follower.next_seq
        end = content.find(b"\n", at)
        at = end + 1 if end >= 0 else len(content)
        try:
            if end < 0 and (until is not None or at - begun > LONGEST):
                raise BadLogError(seq, "torn")
            follower.follow(content[begun : end if end >= 0 else at])
            if end < 0 and mark is not None and (mark.clean or mark.seq >= seq):
                raise BadLogError(seq, "torn")
            if at == len(content) and follower.has_facts_left:
                raise BadLogError(seq, "facts")
        except BadLogError as bad:
            if until is None and _is_torn(follower, content[begun:], mark):
                follower.begin_segment()
                follower.log.torn_bytes = len(content) - begun
                return
            if end < 0 and bad.reason in ("framing", "facts"):
                raise BadLogError(bad.seq, "torn") from None
            raise


def _is_torn(follower: Follower, rest: bytes, mark: Mark | None) -> bool:
    """Return whether bytes at the end may be what a crash has left."""
    if mark is not None and (mark.clean or mark.seq >= follower.next_seq):
        return False
    if len(rest) > MOST_TORN:
        return False
    begins = [found.start() for found in _BEGIN.finditer(rest)]
    ends = [found.end() for found in _END.finditer(rest)]
    return not any(
        follower.is_authentic(rest[begin:end])
        for begin in begins
        for end in ends
        if begin < end <= begin + LONGEST
    )
