# SPDX-License-Identifier: MIT
"""
Recovery of an audit log in files at opening, after a clean stop or a crash.

Everything is verified before anything is written. Each writing step may be interrupted;
the next start repeats or completes it.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from hsm_core._internal.audit.baseline import Baseline
from hsm_core._internal.audit.chain import OpenIntents
from hsm_core._internal.audit.check import Follower
from hsm_core._internal.audit.mark import HeadMark, StoredHead
from hsm_core._internal.audit.reasons import Reason, tampered
from hsm_core._internal.audit.replay import IntentReplay as Found
from hsm_core._internal.audit.scan import (
    Scan,
    claimed_seq,
    judge_end,
    last_line,
    nth_line,
    scan_segment,
)
from hsm_core._internal.lib.failpoints import failpoint
from hsm_core._internal.stores.filesystem.audit_baseline import BaselineFile
from hsm_core._internal.stores.filesystem.audit_beginning import (
    Beginning,
    find_beginning,
)
from hsm_core._internal.stores.filesystem.audit_files import (
    check_file,
    create_file,
    open_reader,
    write_all,
)
from hsm_core._internal.stores.filesystem.audit_pruning import remove_files
from hsm_core._internal.stores.filesystem.audit_repairs import (
    set_aside,
    unrecorded_repairs,
    write_again,
)
from hsm_core._internal.stores.filesystem.audit_segments import STRIDE, Segment
from hsm_core._internal.stores.filesystem.opening import open_no_follow, sync_directory
from hsm_core.model import AuditEvent, RepairDetail


@dataclass(slots=True)
class RecoveredFiles:
    """
    Recovered audit log, ready for appending.

    Attributes:
        mark: Its end.
        closed: Its closed segments.
        live: Its live segment.
        descriptor: The live segment, open for appending, synced.
        intents: Intents without outcome.
        open_events: Their events.
        repairs: Fragments that are not recorded yet.
        baseline: Baseline of pruned records.
    """

    mark: HeadMark
    closed: list[Segment]
    live: Segment
    descriptor: int
    intents: OpenIntents
    open_events: list[AuditEvent]
    repairs: list[RepairDetail]
    baseline: Baseline | None


def recover(path: Path, hmac_key: bytes, head: StoredHead, now: int) -> RecoveredFiles:
    """
    Verify a trail as far as its head mark asks for it, and repair its end.

    Args:
        path: The live segment.

        hmac_key: Key of the trail.

        head: What the head file says.

        now: Microseconds since 1970, for the name of a fragment.

    Raises:
        AuditTamperedError: The trail is not what we left; nothing was changed.
        UnsafeFileModeError: Others could have changed it.
        OSError: It can't be read or repaired.
        StoreUnavailableError: The same.
    """
    exists = check_file(path)
    beginning = find_beginning(path, hmac_key, head, exists=exists)
    replay = SegmentReplay(path, hmac_key, head, beginning)
    torn, scan = replay.run(exists=exists)
    if exists:
        descriptor = open_no_follow(path, os.O_RDWR | os.O_APPEND)
    else:
        descriptor = create_file(path)
    try:
        if torn:
            set_aside(path, descriptor, scan.end, replay.follower.seq + 1, now)
        elif scan.unterminated:
            write_all(descriptor, b"\n")
        if beginning.twin is not None:
            os.unlink(beginning.twin)
        if replay.unmarked is not None:
            leaf_hash = replay.follower.leaf_hash
            write_again(path, replay.unmarked, replay.size, leaf_hash)
        os.fsync(descriptor)
        sync_directory(path.parent)
        failpoint("audit.repair.after_sync")
        _finish_prune(path, hmac_key, head, beginning)
        repairs = unrecorded_repairs(path, replay.follower.seq + 1)
    except BaseException:
        os.close(descriptor)
        raise
    return replay.result(descriptor, repairs)


def _finish_prune(
    path: Path, hmac_key: bytes, head: StoredHead, beginning: Beginning
) -> None:
    file = BaselineFile(path, head.log_id, hmac_key)
    if beginning.is_staged:
        file.adopt()
    else:
        file.discard()
    if beginning.baseline is not None:
        remove_files(path, beginning.baseline.header.next_seq)


class SegmentReplay:
    """
    Follows the records that the head mark, or an intent, still needs.

    Attributes:
        follower: Where they led.
        unmarked: Where records begin in the live segment that the mark doesn't know.
    """

    def __init__(
        self, path: Path, hmac_key: bytes, head: StoredHead, beginning: Beginning
    ) -> None:
        self._path = path
        self._hmac_key = hmac_key
        self._head = head
        self._beginning = beginning
        self._closed = beginning.closed
        number = self._closed[-1].number + 1 if self._closed else 1
        self._live = Segment(path, number, 0)
        self._found = Found(head.mark)
        self.unmarked: int | None = None
        self.follower = self._at_the_beginning()

    def run(self, *, exists: bool) -> tuple[int, Scan]:
        """Follow all of them; return torn bytes and the scan of the live segment."""
        self.reach_live()
        self._live.first_seq = self.follower.seq + 1
        if self._closed:
            last = self._closed[-1]
            last.count = self._live.first_seq - last.first_seq
        if not exists:
            return judge_end(BytesIO(), Scan(0), self.follower), Scan(0)
        with open_reader(self._path) as file:
            scan = scan_segment(file, self.follower, self._visit_live)
            torn = judge_end(file, scan, self.follower)
        self._live.size = scan.end + scan.unterminated
        return torn, scan

    def reach_live(self) -> None:
        """Follow the closed segments, up to where the live one begins."""
        self._check_names()
        for position in range(self._place(), len(self._closed)):
            self._follow_closed(position)

    @property
    def size(self) -> int:
        """How many bytes the good records of the live segment take."""
        return self._live.size

    def result(self, descriptor: int, repairs: list[RepairDetail]) -> RecoveredFiles:
        """Return what was found."""
        return RecoveredFiles(
            mark=self._found.mark(self.follower.seq, self.follower.leaf_hash),
            closed=self._closed,
            live=self._live,
            descriptor=descriptor,
            intents=self._found.intents,
            open_events=self._found.open_events(),
            repairs=repairs,
            baseline=self._beginning.baseline,
        )

    def _at_the_beginning(self) -> Follower:
        seq, leaf_hash = self._beginning.start
        return Follower(
            log_id=self._head.log_id,
            hmac_key=self._hmac_key,
            seq=seq,
            leaf_hash=leaf_hash,
            mark=self._head.mark,
        )

    def _check_names(self) -> None:
        # Numbers begin at 1, and anywhere in a trail whose beginning was pruned.
        is_pruned = self._closed and self._beginning.baseline is not None
        number = self._closed[0].number if is_pruned else 1
        expected_seq = 0
        for position, segment in enumerate(self._closed):
            if segment.number != number or segment.first_seq < expected_seq:
                seq = self._reach(position - 1) if position else self.follower.seq
                raise tampered(Reason.SEGMENT, seq + 1)
            number += 1
            expected_seq = segment.first_seq + 1
        live_seq = self._beginning.live_seq
        if live_seq is not None and live_seq < expected_seq:
            raise tampered(Reason.SEGMENT, live_seq)

    def _reach(self, position: int) -> int:
        """Return the newest record of a segment that can be followed within it."""
        segment = self._closed[position]
        follower = Follower(
            log_id=self._head.log_id,
            hmac_key=self._hmac_key,
            seq=segment.first_seq - 1,
            leaf_hash="",
        )
        with open_reader(segment.path) as file:
            scan_segment(file, follower, lambda *_: None)
        return follower.seq

    def _place(self) -> int:
        """Stand before the first record needed; return the position of its segment."""
        mark = self._head.mark
        needed = min(mark.floor, max(mark.seq, 0))
        for position in range(len(self._closed), 0, -1):
            if self._stand_after(position - 1) and self.follower.seq < needed:
                return position
        self.follower = self._at_the_beginning()
        return 0

    def _stand_after(self, position: int) -> bool:
        segment, end = self._closed[position], self._beginning.end_of(position)
        with open_reader(segment.path) as file:
            line = last_line(file)
            if end is not None and claimed_seq(line or b"") != end - 1:
                # What comes after belongs to the next segment, which overlaps.
                line = nth_line(file, end - 1 - segment.first_seq) or line
        if line is None or not self.follower.is_record(line):
            return False
        self.follower.start_after(line, segment.first_seq)
        return True

    def _follow_closed(self, position: int) -> None:
        segment = self._closed[position]
        if self.follower.seq + 1 != segment.first_seq:
            raise tampered(Reason.SEGMENT, self.follower.seq + 1)
        with open_reader(segment.path) as file:
            scan = scan_segment(
                file,
                self.follower,
                self._visit,
                until=self._beginning.end_of(position),
            )
        if scan.error is not None:
            raise scan.error
        if scan.unterminated:
            raise tampered(Reason.TORN, self.follower.seq)

    def _visit_live(self, event: AuditEvent, offset: int) -> None:
        live = self._live
        if live.offsets is not None and live.count % STRIDE == 0:
            live.offsets.append(offset)
        live.count += 1
        if self.unmarked is None and event.seq > self._head.mark.seq:
            self.unmarked = offset
        self._visit(event, offset)

    def _visit(self, event: AuditEvent, _offset: int) -> None:
        self._found.note(event)
