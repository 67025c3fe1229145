# SPDX-License-Identifier: MIT
"""
Opening a trail that was left behind, in order or not.

Everything is verified before anything is written. Every step that writes may be
interrupted and is done again, or found done, by the next start.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from typing import Final

from hsm_core._internal.audit.chain import OpenIntents
from hsm_core._internal.audit.check import Follower
from hsm_core._internal.audit.mark import HeadMark, StoredHead
from hsm_core._internal.audit.naming import (
    FragmentName,
    closed_names,
    fragment_names,
)
from hsm_core._internal.audit.reasons import Reason, tampered
from hsm_core._internal.audit.scan import Scan, judge_end, last_line, scan_segment
from hsm_core._internal.failpoints import failpoint
from hsm_core._internal.stores.filesystem.audit_files import (
    check_file,
    create_file,
    open_reader,
    replace_file,
    write_all,
)
from hsm_core._internal.stores.filesystem.audit_segments import STRIDE, Segment
from hsm_core._internal.stores.filesystem.files import (
    list_directory,
    open_no_follow,
    path_exists,
    sync_directory,
)
from hsm_core.model import AuditEvent, Phase, RepairDetail

__all__ = ["Recovered", "recover"]

_CHUNK: Final = 1024 * 1024


@dataclass(slots=True)
class Recovered:
    """
    A trail that is ready to be written on.

    Attributes:
        mark: Its end.
        closed: Its closed segments.
        live: Its live segment.
        descriptor: The live segment, open for appending, synced.
        intents: Intents without outcome.
        open_events: Their events.
        repairs: Fragments that no record tells of yet.
    """

    mark: HeadMark
    closed: list[Segment]
    live: Segment
    descriptor: int
    intents: OpenIntents
    open_events: list[AuditEvent]
    repairs: list[RepairDetail]


def recover(path: Path, hmac_key: bytes, head: StoredHead, now: int) -> Recovered:
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
    closed = _closed_segments(path)
    replay = _Replay(path, hmac_key, head, closed)
    exists = check_file(path)
    torn, scan = replay.run(exists=exists)
    if exists:
        descriptor = open_no_follow(path, os.O_RDWR | os.O_APPEND)
    else:
        descriptor = create_file(path)
    try:
        if torn:
            _set_aside(path, descriptor, scan.end, replay.follower.seq + 1, now)
        elif scan.unterminated:
            write_all(descriptor, b"\n")
        os.fsync(descriptor)
        sync_directory(path.parent)
        failpoint("audit.repair.after_sync")
        repairs = _unrecorded_repairs(path, replay.follower.seq + 1)
    except BaseException:
        os.close(descriptor)
        raise
    return replay.result(descriptor, repairs)


def _closed_segments(path: Path) -> list[Segment]:
    names = closed_names(path.name, list_directory(path.parent)[1])
    found = [
        Segment(path.with_name(c.of(path.name)), c.number, c.first_seq, offsets=None)
        for c in names
    ]
    for segment in found:
        check_file(segment.path)
    for before, after in pairwise(found):
        before.count = after.first_seq - before.first_seq
    return found


class _Replay:
    """Follows the records that the head mark, or an intent, still needs."""

    def __init__(
        self, path: Path, hmac_key: bytes, head: StoredHead, closed: list[Segment]
    ) -> None:
        self._path = path
        self._hmac_key = hmac_key
        self._head = head
        self._closed = closed
        self._live = Segment(path, len(closed) + 1, 0)
        self._intents = OpenIntents()
        self._events: dict[str, AuditEvent] = {}
        self._set_digest = head.mark.set_digest
        self.follower = self._at_genesis()

    def run(self, *, exists: bool) -> tuple[int, Scan]:
        """Follow all of them; return torn bytes and the scan of the live segment."""
        self._check_names()
        for segment in self._closed[self._place() :]:
            self._follow_closed(segment)
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

    def result(self, descriptor: int, repairs: list[RepairDetail]) -> Recovered:
        """Return what was found."""
        follower = self.follower
        mark = HeadMark(
            seq=follower.seq,
            leaf_hash=follower.leaf_hash,
            floor=self._intents.floor(follower.seq),
            set_digest=self._set_digest,
        )
        return Recovered(
            mark=mark,
            closed=self._closed,
            live=self._live,
            descriptor=descriptor,
            intents=self._intents,
            open_events=list(self._events.values()),
            repairs=repairs,
        )

    def _at_genesis(self) -> Follower:
        return Follower(
            log_id=self._head.log_id, hmac_key=self._hmac_key, mark=self._head.mark
        )

    def _check_names(self) -> None:
        expected_seq = 0
        for number, segment in enumerate(self._closed, 1):
            if segment.number != number or segment.first_seq < expected_seq:
                if number > 1:
                    self._stand_after(self._closed[number - 2])
                raise tampered(Reason.SEGMENT, self.follower.seq + 1)
            expected_seq = segment.first_seq + 1

    def _place(self) -> int:
        """Stand before the first record needed; return the position of its segment."""
        mark = self._head.mark
        needed = min(mark.floor, max(mark.seq, 0))
        for position in range(len(self._closed), 0, -1):
            found = self._stand_after(self._closed[position - 1])
            if found and self.follower.seq < needed:
                return position
        self.follower = self._at_genesis()
        return 0

    def _stand_after(self, segment: Segment) -> bool:
        with open_reader(segment.path) as file:
            line = last_line(file)
        if line is None or not self.follower.is_record(line):
            return False
        self.follower.start_after(line, segment.first_seq)
        return True

    def _follow_closed(self, segment: Segment) -> None:
        if self.follower.seq + 1 != segment.first_seq:
            raise tampered(Reason.SEGMENT, self.follower.seq + 1)
        with open_reader(segment.path) as file:
            scan = scan_segment(file, self.follower, self._visit)
        if scan.error is not None:
            raise scan.error
        if scan.unterminated:
            raise tampered(Reason.TORN, self.follower.seq)

    def _visit_live(self, event: AuditEvent, offset: int) -> None:
        live = self._live
        if live.offsets is not None and live.count % STRIDE == 0:
            live.offsets.append(offset)
        live.count += 1
        self._visit(event, offset)

    def _visit(self, event: AuditEvent, _offset: int) -> None:
        if event.phase is not Phase.SINGLE:
            self._intents.note(event.phase, event.operation_id, event.seq)
            if event.phase is Phase.INTENT:
                self._events.setdefault(event.operation_id, event)
            else:
                self._events.pop(event.operation_id, None)
        self._set_digest = event.set_digest or self._set_digest


def _set_aside(path: Path, descriptor: int, end: int, seq: int, now: int) -> None:
    with open_reader(path) as file:
        file.seek(end)
        fragment = file.read()
    if not _is_kept(path, seq, fragment):
        name = FragmentName(seq, max(now, 0))
        while path_exists(path.with_name(name.of(path.name))):
            name = name._replace(microseconds=name.microseconds + 1)
        temporary = path.with_name(f"{path.name}.torn.new")
        replace_file(temporary, path.with_name(name.of(path.name)), fragment)
    failpoint("audit.repair.after_fragment")
    os.ftruncate(descriptor, end)
    failpoint("audit.repair.after_truncate")


def _is_kept(path: Path, seq: int, fragment: bytes) -> bool:
    # A repair that was interrupted has kept the fragment, but not yet cut it off.
    for kept in _fragments(path, seq):
        with open_reader(kept) as file:
            if file.read(len(fragment) + 1) == fragment:
                return True
    return False


def _fragments(path: Path, seq: int) -> list[Path]:
    names = fragment_names(path.name, list_directory(path.parent)[1])
    return [path.with_name(n.of(path.name)) for n in names if n.seq == seq]


def _unrecorded_repairs(path: Path, seq: int) -> list[RepairDetail]:
    # The record of a repair has the very number at which the tail was torn.
    return [_repair_of(kept) for kept in _fragments(path, seq)]


def _repair_of(kept: Path) -> RepairDetail:
    digest, size = hashlib.sha256(), 0
    with open_reader(kept) as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return RepairDetail(
        fragment_bytes=size, fragment_sha256=digest.hexdigest(), kept_as=kept.name
    )
