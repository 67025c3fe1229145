# SPDX-License-Identifier: MIT
"""
Start of an audit log in files: its first record, and its segments.

Segments before the baseline's end are pruned, whether or not they were removed already.
Where two segments overlap, the later one wins from its first record on: the earlier one
was given up after a failed sync, and may hold anything from there on.
"""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from hsm_core._internal.audit.baseline import Baseline
from hsm_core._internal.audit.check import Follower
from hsm_core._internal.audit.mark import StoredHead
from hsm_core._internal.audit.naming import closed_names
from hsm_core._internal.audit.pruned import PrunedPrefix
from hsm_core._internal.audit.reasons import Reason, tampered
from hsm_core._internal.audit.record import FRAME, MAX_LINE_BYTES, decode_event
from hsm_core._internal.audit.scan import begins, first_seq
from hsm_core._internal.lib import envelope
from hsm_core._internal.stores.filesystem.audit_baseline import BaselineFile
from hsm_core._internal.stores.filesystem.audit_files import check_file, open_reader
from hsm_core._internal.stores.filesystem.audit_segments import Segment
from hsm_core._internal.stores.filesystem.files import list_directory


@dataclass(frozen=True, slots=True)
class Beginning:
    """
    The beginning of a trail, and its segments.

    Attributes:
        closed: The closed segments that count.
        live_seq: What the live segment's first record says of its place, if it can
            be read.
        start: Sequence number and leaf hash of the record before the first one.
        baseline: What is kept of the records before.
        is_staged: The baseline still has to take its place.
        twin: A second name of the live segment, which an interrupted healing left.
    """

    closed: list[Segment]
    live_seq: int | None
    start: tuple[int, str]
    baseline: Baseline | None
    is_staged: bool
    twin: Path | None

    def end_of(self, position: int) -> int | None:
        """Return the record from which on the next segment wins, if it is known."""
        if position + 1 < len(self.closed):
            return self.closed[position + 1].first_seq
        return self.live_seq


def find_beginning(
    path: Path, hmac_key: bytes, head: StoredHead, *, exists: bool
) -> Beginning:
    """
    Find out where a trail begins; nothing is written.

    Args:
        path: The live segment.

        hmac_key: Key of the trail.

        head: What the head file says.

        exists: There is a live segment.

    Raises:
        AuditTamperedError: Records are gone that no prune has removed, or what is kept
            of those that it has was changed.
        UnsafeFileModeError: Others could have changed a file.
        OSError: A file can't be read.
        StoreUnavailableError: A file can't be examined.
    """
    found, twin = _closed_segments(path, exists=exists)
    follower = Follower(log_id=head.log_id, hmac_key=hmac_key)
    files = BaselineFile(path, head.log_id, hmac_key)
    with open_reader(path) if exists else nullcontext() as live:
        live_seq = first_seq(live) if live else None
        alone = begins(live, follower, 0)
    ends = [*(segment.first_seq for segment in found[1:]), live_seq]
    places = [(s.path, end) for s, end in zip(found, ends, strict=False)]
    places += [(path, None)] if exists else []
    search = _Search(places, follower)
    baseline, staged = files.read(), files.read_staged()
    covered = baseline.header.next_seq if baseline else 0
    # An old one that somebody put there again is no step back.
    is_staged = (
        staged is not None
        and staged.header.next_seq > covered
        and search.tells_of(staged)
    )
    if is_staged:
        baseline = staged
    elif baseline is not None and not search.tells_of(baseline):
        raise tampered(Reason.PRUNED, 0)
    covered = baseline.header.next_seq if baseline else 0
    closed = [segment for segment in found if segment.first_seq >= covered]
    first = closed[0].first_seq if closed else max(alone, covered)
    prefix = PrunedPrefix(first, baseline)
    return Beginning(closed, live_seq, prefix.start, baseline, is_staged, twin)


def _closed_segments(path: Path, *, exists: bool) -> tuple[list[Segment], Path | None]:
    names = closed_names(path.name, list_directory(path.parent)[1])
    found = [
        Segment(path.with_name(c.of(path.name)), c.number, c.first_seq, offsets=None)
        for c in names
    ]
    twin = None
    if exists and found:
        last = found[-1].path
        if os.path.samestat(os.lstat(last), os.lstat(path)):
            twin = found.pop().path
    for segment in found:
        check_file(segment.path)
    for before, after in pairwise(found):
        before.count = after.first_seq - before.first_seq
    return found, twin


class _Search:
    """
    Looks for the record of a prune, which comes not long after a known one.

    Args:
        places: Segments, each with the record from which on the next one wins.

        follower: Tells records of the trail.
    """

    def __init__(
        self, places: list[tuple[Path, int | None]], follower: Follower
    ) -> None:
        self._places = places
        self._follower = follower

    def tells_of(self, baseline: Baseline) -> bool:
        """Return whether the record of the prune that made a baseline is there."""
        after = baseline.header.after_seq
        return any(
            self._is_in(place, baseline)
            for place, end in self._places
            if end is None or end > after + 1
        )

    def _is_in(self, place: Path, baseline: Baseline) -> bool:
        with open_reader(place) as file:
            while line := file.readline(MAX_LINE_BYTES + 1):
                if b'"type":"prune"' in line and self._is_record_of(
                    baseline, line.removesuffix(b"\n")
                ):
                    return True
        return False

    def _is_record_of(self, baseline: Baseline, line: bytes) -> bool:
        if not self._follower.is_record(line):
            return False
        event = decode_event(envelope.split(FRAME, line)[0])
        return event is not None and event.detail == baseline.detail
