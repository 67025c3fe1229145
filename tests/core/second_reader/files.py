# SPDX-License-Identifier: MIT
"""A log in files: a series of segments, the last of them live."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tests.core.second_reader.follower import Follower, Log, Mark
from tests.core.second_reader.keys import NOTHING, BadLogError
from tests.core.second_reader.lines import ENTRY, FACTS, LONGEST
from tests.core.second_reader.marks import baseline_of, check_prune, mark_of

MOST_TORN: Final = 64 * 1024 * 1024
_CLOSED: Final = re.compile(r"\.([0-9]{8})\.([0-9]{16})")


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
    if not head.exists():
        raise BadLogError(0, "head_missing")
    mark = mark_of(head.read_bytes(), hmac_key)
    kept = path.with_name(path.name + ".baseline")
    baseline = baseline_of(kept.read_bytes(), hmac_key) if kept.exists() else None
    if baseline is not None and baseline.header["log_id"] != mark.log_id:
        raise BadLogError(0, "baseline")
    counted = mark if hmac_key is not None else None
    first = (0, NOTHING)
    if baseline is not None:
        first = baseline.next_seq, str(baseline.header["last_leaf_hash"])
    follower = Follower(mark.log_id, hmac_key, counted, first)
    segments = list(_segments(path, first[0]))
    begins = [start for _, start, _ in segments]
    if begins[0] != first[0]:
        raise BadLogError(first[0], "pruned")
    for place, (content, start, _) in enumerate(segments):
        is_live = place == len(segments) - 1
        if start > follower.next_seq:
            raise BadLogError(follower.next_seq, "sequence")
        if start < follower.next_seq or (place and start <= begins[place - 1]):
            raise BadLogError(start, "segment")
        follower.begin_segment()
        until = None if is_live else begins[place + 1]
        _follow_segment(follower, content, until, counted)
    log = follower.end()
    if baseline is not None:
        check_prune(log, baseline)
    return log


def _segments(path: Path, first_seq: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield content, first entry and number of each segment that is part of a log."""
    found = []
    for file in path.parent.iterdir():
        name = _CLOSED.fullmatch(file.name.removeprefix(path.name))
        if name is not None and int(name[2]) >= first_seq:
            found.append((int(name[1]), int(name[2]), file))
    found.sort()
    before = found[0][0] - 1 if found else 0
    for number, start, file in found:
        if number != before + 1:
            raise BadLogError(start, "segment")
        before = number
        yield file.read_bytes(), start, number
    live = path.read_bytes() if path.exists() else b""
    entry = next((e for e in map(ENTRY.fullmatch, live.split(b"\n")) if e), None)
    if entry is not None:
        yield live, int(entry[1], 16), before + 1
    elif live or not found:
        yield live, _end_of(found, first_seq), before + 1


def _end_of(found: list[tuple[int, int, Path]], first_seq: int) -> int:
    """Return where a live segment without an entry begins: behind all others."""
    if not found:
        return first_seq
    _, start, file = found[-1]
    lines = file.read_bytes().split(b"\n")[:-1]
    return start + sum(not line.startswith(FACTS) for line in lines)


def _follow_segment(
    follower: Follower, content: bytes, until: int | None, mark: Mark | None
) -> None:
    """Follow the lines of a segment, up to the first entry of the next one."""
    at = 0
    while at < len(content) and follower.next_seq != until:
        end = content.find(b"\n", at)
        whole = end >= 0
        line = content[at : end if whole else len(content)]
        begun = at
        at = end + 1 if whole else len(content)
        try:
            if not whole and until is not None:
                raise BadLogError(follower.next_seq, "torn")
            if not whole and len(line) > LONGEST:
                raise BadLogError(follower.next_seq, "torn")
            follower.follow(line)
        except BadLogError as bad:
            if until is None and _is_torn(follower, content[begun:], mark):
                follower.log.torn_bytes = len(content) - begun
                return
            if not whole and bad.reason == "framing":
                raise BadLogError(bad.seq, "torn") from None
            raise
        if until is None and follower.has_facts_left and at >= len(content):
            if not _is_torn(follower, content[begun:], mark):
                raise BadLogError(follower.next_seq, "facts")
            follower.begin_segment()
            follower.log.torn_bytes = len(content) - begun
    if until is not None and follower.next_seq != until:
        raise BadLogError(follower.next_seq, "sequence")


def _is_torn(follower: Follower, rest: bytes, mark: Mark | None) -> bool:
    """Return whether bytes at the end may be what a crash has left."""
    if mark is not None and (mark.clean or mark.seq >= follower.next_seq):
        return False
    if len(rest) > MOST_TORN:
        return False
    return not any(map(follower.is_authentic, rest.split(b"\n")))
