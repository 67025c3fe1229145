# SPDX-License-Identifier: MIT
"""
Recovery of an audit log in files at opening, after a clean stop or a crash.

Everything is verified before anything is written. Each writing step may be interrupted;
the next start repeats or completes it.

Recovery of a forked audit log: two processes wrote one live segment.

One branch stays the trail: the longest of those that hold the record which the head
mark names. The records of the others are kept beside it, and the record of the repair
names their file and its SHA-256. Only authentic records are set aside: a trail that was
edited is not a forked one, and stays as it is.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from hsm_core._internal.audit.baseline import Baseline, PrunedPrefix
from hsm_core._internal.audit.chain import Follower, OpenIntents
from hsm_core._internal.audit.chain import IntentReplay as Found
from hsm_core._internal.audit.head_mark import HeadMark, StoredHead
from hsm_core._internal.audit.record import (
    FRAME,
    MAX_LINE_BYTES,
    Reason,
    decode_event,
    leaf_hash,
    tampered,
)
from hsm_core._internal.lib import encoding
from hsm_core._internal.lib.failpoints import failpoint
from hsm_core._internal.stores.filesystem.audit_files import (
    FragmentName,
    check_file,
    closed_names,
    create_file,
    new_name,
    open_reader,
    replace_file,
    write_all,
)
from hsm_core._internal.stores.filesystem.audit_pruning import (
    BaselineFile,
    remove_files,
)
from hsm_core._internal.stores.filesystem.audit_repairs import (
    keep_fragment,
    set_aside,
    unrecorded_repairs,
    write_again,
)
from hsm_core._internal.stores.filesystem.audit_scan import (
    Scan,
    begins,
    claimed_seq,
    first_seq,
    judge_end,
    last_line,
    nth_line,
    scan_segment,
)
from hsm_core._internal.stores.filesystem.audit_segments import STRIDE, Segment
from hsm_core._internal.stores.filesystem.files import list_directory
from hsm_core._internal.stores.filesystem.opening import open_no_follow, sync_directory
from hsm_core.errors import AuditTamperedError, ConfigurationError
from hsm_core.model import AuditEvent, RepairDetail


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
        event = decode_event(encoding.split(FRAME, line)[0])
        return event is not None and event.detail == baseline.detail


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


class _Node(NamedTuple):
    """A record of the live segment: its line, its place, and the leaf before it."""

    line: bytes
    seq: int
    prev: str


def set_fork_aside(path: Path, hmac_key: bytes, head: StoredHead, now: int) -> None:
    """
    Leave one branch of a forked trail, and keep the others beside it.

    The next start records the repair. May be interrupted, and is done again then.

    Args:
        path: The live segment, locked.

        hmac_key: Key of the trail.

        head: What the head file says.

        now: Microseconds since 1970, for the name of the file that is kept.

    Raises:
        ConfigurationError: The trail is not damaged.
        AuditTamperedError: It is damaged in another way; nothing was changed.
        UnsafeFileModeError: Other users can write it.
        OSError: It can't be read or written.
        StoreUnavailableError: The same.
    """
    beginning = find_beginning(path, hmac_key, head, exists=path.exists())
    try:
        SegmentReplay(path, hmac_key, head, beginning).run(exists=path.exists())
    except AuditTamperedError as error:
        damage = error
    else:
        raise ConfigurationError("The audit trail is not forked.", path=str(path))
    replay = SegmentReplay(path, hmac_key, head, beginning)
    replay.reach_live()
    with open_reader(path) as file:
        *lines, torn = file.read().split(b"\n")
    start = replay.follower
    nodes = _nodes(lines, start, damage)
    branch = _branch(nodes, start, head, damage)
    ours = [nodes[leaf].line for leaf in branch]
    theirs = [node.line for leaf, node in nodes.items() if leaf not in branch]
    aside = b"".join(line + b"\n" for line in theirs) + torn
    name = FragmentName(start.seq + len(ours) + 1, max(now, 0), "fork")
    keep_fragment(path, name, aside)
    if beginning.twin is not None:
        os.unlink(beginning.twin)
    content = b"".join(line + b"\n" for line in ours)
    replace_file(path.with_name(new_name(path.name)), path, content)


def _nodes(
    lines: Sequence[bytes], start: Follower, damage: AuditTamperedError
) -> dict[str, _Node]:
    """Return all records by leaf hash; each follows from one before it in the file."""
    nodes: dict[str, _Node] = {}
    places = {start.leaf_hash: start.seq}
    for line in lines:
        event = None
        if start.is_record(line):
            event = decode_event(encoding.split(FRAME, line)[0])
        if event is None or places.get(event.prev) != event.seq - 1:
            raise damage
        leaf = leaf_hash(line)
        places[leaf] = event.seq
        nodes[leaf] = _Node(line, event.seq, event.prev)
    return nodes


def _branch(
    nodes: dict[str, _Node],
    start: Follower,
    head: StoredHead,
    damage: AuditTamperedError,
) -> dict[str, None]:
    """Return the leaf hashes of the branch that stays, in order."""
    if len({node.prev for node in nodes.values()}) == len(nodes):
        raise damage
    mark = head.mark
    needed = mark.leaf_hash if mark.seq > start.seq else start.leaf_hash
    if needed not in nodes and needed != start.leaf_hash:
        raise damage
    # A record stands after the one that it follows.
    reached = {needed}
    for leaf, node in nodes.items():
        if node.prev in reached:
            reached.add(leaf)
    # After an end in order nothing follows, so that branch ends with the mark.
    tip = needed
    if not mark.clean:
        tip = max((n for n in nodes if n in reached), key=lambda leaf: nodes[leaf].seq)
    branch = []
    while tip in nodes:
        branch.append(tip)
        tip = nodes[tip].prev
    return dict.fromkeys(reversed(branch))
