# SPDX-License-Identifier: MIT
"""
Verification of an audit log's files by another process.

It streams, so that memory does not grow with the log; it takes no lock and writes
nothing.
"""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Final

from hsm_core._internal.audit.baseline import Baseline, PrunedPrefix, check_baseline
from hsm_core._internal.audit.chain import Follower
from hsm_core._internal.audit.head_mark import HEAD_BYTES, HeadCodec, StoredHead
from hsm_core._internal.audit.record import MAX_LINE_BYTES, Reason, tampered
from hsm_core._internal.audit.verify import OfflineVerification, VerificationRun
from hsm_core._internal.lib.failpoints import failpoint
from hsm_core._internal.stores.filesystem.audit_files import (
    ClosedName,
    baseline_name,
    closed_names,
    head_name,
    lock_name,
)
from hsm_core._internal.stores.filesystem.audit_scan import (
    Scan,
    begins,
    first_seq,
    judge_end,
    scan_segment,
)
from hsm_core.errors import AuditTamperedError, ConfigurationError
from hsm_core.model import AuditEvent

_TRIES: Final = 4
"""Attempts to read an audit log whose files change, before it counts as damaged."""


class AuditVerifier:
    """
    Verifies the files of an audit log, in use or not, without changing them.

    Args:
        path: The live segment. Closed ones and the head mark lie beside it.

        hmac_key: None verifies the chain only, which detects neither a recomputed chain
            nor a truncated tail.
    """

    def __init__(self, path: Path, hmac_key: bytes | None) -> None:
        self._path = path
        self._hmac_key = hmac_key

    def verify(
        self,
        progress: Callable[[int], None] | None = None,
        look: Callable[[AuditEvent], None] | None = None,
    ) -> OfflineVerification:
        """
        Verify every record of every segment, and the end against the head mark.

        Args:
            progress: Called now and then with the number of records verified.

            look: Called with each good record, with some more than once; its exceptions
                end the verification.

        Raises:
            AuditTamperedError: The trail is damaged; ``facts`` name the first bad
                record as ``seq`` and the ``reason``.
            WrongAuditKeyError: The key is not the trail's.
            ConfigurationError: There is no trail, or it can't be read.
        """
        tries_left = _TRIES
        while True:
            tries_left -= 1
            before = self._places()
            try:
                return self._verify_once(progress, look)
            except AuditTamperedError:
                # A prune under way takes segments away and changes the baseline; a
                # healing gives the live one another name, or takes it back.
                if not tries_left or before == self._places():
                    raise
            except OSError as error:
                raise ConfigurationError(
                    f"The audit log can't be read: {error.strerror}.",
                    path=str(self._path),
                ) from error

    def _verify_once(
        self,
        progress: Callable[[int], None] | None,
        look: Callable[[AuditEvent], None] | None,
    ) -> OfflineVerification:
        # The mark is read first: what it names was written before, so it is found.
        head = self._read_head()
        failpoint("audit.verify.after_head")
        baseline = self._read_baseline(head.log_id if head else "")
        with ExitStack() as stack:
            closed, live = self._open_segments(stack)
            if not closed and live is None and head is None:
                raise ConfigurationError("No audit log found.", path=str(self._path))
            covered = baseline.header.next_seq if baseline else 0
            closed = [name for name in closed if name.first_seq >= covered]
            live_seq = first_seq(live) if live else None
            log_id = head.log_id if head else None
            judge = Follower(log_id=log_id, hmac_key=self._hmac_key)
            alone = begins(live, judge, 0)
            first = closed[0].first_seq if closed else max(alone, covered)
            prefix = PrunedPrefix(first, baseline)
            trail = _Trail(self._hmac_key, head, prefix, progress, look)
            ends = [*(name.first_seq for name in closed[1:]), live_seq]
            # Numbers begin anywhere in a trail whose beginning was pruned.
            number = closed[0].number if closed and baseline else 1
            for name, end in zip(closed, ends, strict=False):
                self._follow_closed(name, number, end, trail)
                number += 1
            torn = self._follow_live(live, trail)
        return self._result(trail, torn)

    def _result(self, run: _Trail, torn: int) -> OfflineVerification:
        follower = run.follower
        if follower.mark is None and self._hmac_key is not None and follower.seq >= 0:
            raise tampered(Reason.HEAD_MISSING, 0)
        is_clean = follower.mark is not None and follower.mark.clean
        in_use = not is_clean and self._is_in_use()
        return run.result(torn_bytes=torn, in_use=in_use)

    def _is_in_use(self) -> bool:
        """Return whether a process holds the writer's lock."""
        try:
            file = _open_regular(self._path.with_name(lock_name(self._path.name)))
        except (OSError, ConfigurationError):
            return False
        if file is None:
            return False
        with file:
            try:
                # Shared, so that two verifiers don't take each other for a server.
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False

    def _read_head(self) -> StoredHead | None:
        if self._hmac_key is None:
            return None
        file = _open_regular(self._path.with_name(head_name(self._path.name)))
        if file is None:
            return None
        with file:
            return HeadCodec.read(file.read(HEAD_BYTES + 1), self._hmac_key)

    def _read_baseline(self, log_id: str) -> Baseline | None:
        file = _open_regular(self._path.with_name(baseline_name(self._path.name)))
        if file is None:
            return None
        with file:
            lines = iter(lambda: file.readline(MAX_LINE_BYTES + 1), b"")
            return check_baseline(lines, log_id=log_id, hmac_key=self._hmac_key)

    def _places(self) -> tuple[list[ClosedName], int | None, int | None]:
        """Return the current files, with the inodes of baseline and live segment."""
        baseline = self._path.with_name(baseline_name(self._path.name))
        return self._closed_names(), _inode(baseline), _inode(self._path)

    def _open_segments(
        self, stack: ExitStack
    ) -> tuple[list[ClosedName], BinaryIO | None]:
        # The live segment is opened before the closed ones are listed. If it is closed
        # in between, it is found among them, and what came after it is left out.
        live = _open_regular(self._path)
        if live is None:
            return self._closed_names(), None
        stack.enter_context(live)
        failpoint("audit.verify.after_live")
        opened = os.fstat(live.fileno()).st_ino
        while True:
            closed = self._closed_names()
            inodes = [_inode(self._place(name)) for name in closed]
            # What was pruned just now, or a name that a healing took back, is not
            # missing.
            if None not in inodes:
                break
        return closed[: inodes.index(opened) if opened in inodes else None], live

    def _closed_names(self) -> list[ClosedName]:
        try:
            names = os.listdir(self._path.parent)
        except FileNotFoundError:
            return []
        return closed_names(self._path.name, names)

    def _place(self, name: ClosedName) -> Path:
        return self._path.with_name(name.of(self._path.name))

    def _follow_closed(
        self, name: ClosedName, number: int, end: int | None, trail: _Trail
    ) -> None:
        follower = trail.follower
        joins = name == (number, follower.seq + 1)
        if not joins or (end is not None and end <= name.first_seq):
            raise tampered(Reason.SEGMENT, follower.seq + 1)
        file = _open_regular(self._place(name))
        if file is None:
            raise tampered(Reason.SEGMENT, follower.seq + 1)
        with file:
            scan = scan_segment(file, follower, trail.note, until=end)
        if scan.error is not None:
            raise scan.error
        if scan.unterminated:
            raise tampered(Reason.TORN, follower.seq)

    def _follow_live(self, live: BinaryIO | None, trail: _Trail) -> int:
        if live is None:
            return judge_end(BytesIO(), Scan(0), trail.follower)
        scan = _scan_on(live, Scan(0), trail)
        while True:
            try:
                return judge_end(live, scan, trail.follower)
            except AuditTamperedError:
                further = _scan_on(live, scan, trail) if scan.error else scan
                # What was being written just now may be whole by now.
                if further.end == scan.end and not self._was_opened_since(trail):
                    raise
                scan = further

    def _was_opened_since(self, trail: _Trail) -> bool:
        # A trail that was closed when its mark was read may be in use by now.
        now, then, mark = self._read_head(), trail.head, trail.follower.mark
        if now is None or then is None or now.counter == then.counter:
            return False
        if mark is None or not mark.clean:
            return False
        trail.follower.mark = replace(mark, clean=False)
        return True


class _Trail(VerificationRun):
    """Running verification of files."""

    def note(self, event: AuditEvent, _offset: int) -> None:
        """Process the next good record."""
        self.visit(event, self.follower.leaf_hash)


def _scan_on(live: BinaryIO, before: Scan, trail: _Trail) -> Scan:
    """Follow the records of the live segment from where an earlier scan ended."""
    live.seek(before.end)
    more = scan_segment(live, trail.follower, trail.note)
    return replace(more, end=before.end + more.end)


def _inode(path: Path) -> int | None:
    try:
        return os.stat(path, follow_symlinks=False).st_ino
    except OSError:
        return None


def _open_regular(path: Path) -> BinaryIO | None:
    """Open a file for reading, or return None if there is none of this name."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    file = os.fdopen(descriptor, "rb")
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return file
    file.close()
    raise ConfigurationError(f"{path} is not a regular file.", path=str(path))
