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
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import BinaryIO, Final, NoReturn, TypeAlias

from msgspec.structs import replace

from hsm_core._internal.audit.baseline import Baseline, check_baseline
from hsm_core._internal.audit.chain import Follower
from hsm_core._internal.audit.facts import MAX_LINE_BYTES, FactsTrack
from hsm_core._internal.audit.head_mark import HEAD_BYTES, HeadCodec, StoredHead
from hsm_core._internal.audit.offline import OfflineVerifier
from hsm_core._internal.audit.reasons import Reason, tampered
from hsm_core._internal.audit.record import RecordCodec
from hsm_core._internal.audit.uses import Line
from hsm_core._internal.audit.verify import (
    Look,
    OfflineVerification,
    follow,
    log_id_of,
    skip_to_needed,
    verify_log,
)
from hsm_core._internal.lib.failpoints import failpoint
from hsm_core._internal.stores.filesystem.audit_files import (
    BASELINE,
    HEAD,
    LOCK,
    ClosedName,
    closed_names,
)
from hsm_core._internal.stores.filesystem.audit_segments import Segment, segments_of
from hsm_core._internal.stores.filesystem.audit_stored import StoredSegments
from hsm_core._internal.stores.filesystem.audit_workers import (
    SegmentWorkers,
    segment_workers,
)
from hsm_core._internal.stores.filesystem.opening import sibling
from hsm_core.errors import AuditTamperedError, ConfigurationError

_Places: TypeAlias = tuple[list[ClosedName], int | None, int | None]

_TRIES: Final = 4
"""Attempts to read an audit log whose files change, before it counts as damaged."""


class AuditVerifier(OfflineVerifier):
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

    def _verified(
        self,
        progress: Callable[[int], None] | None,
        look: Look | None,
        look_from: int = 0,
    ) -> OfflineVerification:
        tries_left = _TRIES
        while True:
            tries_left -= 1
            before = self._places()
            try:
                with self._opened() as stored, self._ahead(stored, look) as ahead:
                    stored.ahead = ahead
                    found = verify_log(
                        stored, self._hmac_key, progress, look, look_from, ahead
                    )
                return replace(found, in_use=not found.clean and self._is_in_use())
            except AuditTamperedError:
                # A prune under way takes segments away and changes the baseline; a
                # healing gives the live one another name, or takes it back.
                if not tries_left or before == self._places():
                    raise
            except OSError as error:
                raise self._unreadable(error) from error

    def _ahead(
        self, stored: StoredSegments, look: Look | None
    ) -> AbstractContextManager[SegmentWorkers | None]:
        """Give workers for the closed segments, if they save time."""
        if look is not None:
            return nullcontext()
        return segment_workers(
            stored.closed, stored.live_seq, log_id_of(stored), self._hmac_key
        )

    def follow(
        self,
        look: Look,
        start_seq: int | None,
        wait: Callable[[], None],
    ) -> NoReturn:
        """
        Verify every record, show records from one on, and continue with new ones.

        Args:
            look: Called with each of them, facts line and entry, and its seq.

            start_seq: The first; None for the first one that is not there yet.

            wait: Called at the end of the log, until it raises something.

        Raises:
            HSMError: See ``verify``.
        """
        first = self.verify()
        seen = _Seen(look, first.head_seq, first.head_hash)
        if start_seq is not None and start_seq <= first.head_seq:
            seen = _Seen(look, start_seq - 1, "")
        tries_left = _TRIES
        while True:
            before = self._places()
            try:
                with self._opened() as stored:
                    self._follow_opened(stored, seen, wait, before)
                tries_left = _TRIES
            except AuditTamperedError:
                tries_left -= 1
                if not tries_left or before == self._places():
                    raise
            except BrokenPipeError:
                raise  # From *look*: no read of a file raises it.
            except OSError as error:
                raise self._unreadable(error) from error

    def _follow_opened(
        self,
        stored: _BusySegments,
        seen: _Seen,
        wait: Callable[[], None],
        places: _Places,
    ) -> None:
        """Show new records until the files are others: then they are opened again."""
        follower = skip_to_needed(stored, self._hmac_key, max(seen.seq, 0))

        def follow_uses(lines: Sequence[Line], facts: FactsTrack) -> int:
            skipped = lines[: max(seen.seq - follower.seq - 1, 0)]
            return follower.follow_uses(skipped, facts)

        def visit(entry: bytes) -> None:
            seen.visit(stored.joined(entry), follower.seq, follower.leaf_hash)

        stored.follow_uses = follow_uses
        while True:
            follow(stored, follower, visit)
            if self._places() != places:
                return
            wait()
            stored.head = self._read_head()
            follower.mark = stored.head.mark if stored.head else None

    @contextmanager
    def _opened(self) -> Iterator[_BusySegments]:
        # The mark is read first: what it names was written before, so it is found.
        head = self._read_head()
        failpoint("audit.verify.after_head")
        log_id = head.log_id if head else None
        baseline = self._read_baseline(log_id or "")
        with ExitStack() as stack:
            closed, file = self._open_segments(stack)
            if not closed and file is None and head is None:
                raise ConfigurationError(
                    f"No audit log found at {self._path}.", path=str(self._path)
                )
            stored = _BusySegments(
                closed,
                Segment(self._path, 0, 0, offsets=None),
                file,
                RecordCodec(log_id, self._hmac_key),
                head=head,
                baseline=baseline,
                open_file=_open_regular,
            )
            stored.read_head = self._read_head
            yield stored

    def _unreadable(self, error: OSError) -> ConfigurationError:
        return ConfigurationError(
            f"The audit log can't be read: {error.filename or self._path}: "
            f"{error.strerror}.",
            path=str(self._path),
        )

    def _is_in_use(self) -> bool:
        """Return whether a process holds the writer's lock."""
        try:
            file = _open_regular(sibling(self._path, LOCK))
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
        file = _open_regular(sibling(self._path, HEAD))
        if file is None:
            return None
        with file:
            return HeadCodec.read(file.read(HEAD_BYTES + 1), self._hmac_key)

    def _read_baseline(self, log_id: str) -> Baseline | None:
        file = _open_regular(sibling(self._path, BASELINE))
        if file is None:
            return None
        with file:
            lines = iter(lambda: file.readline(MAX_LINE_BYTES + 1), b"")
            return check_baseline(lines, log_id=log_id, hmac_key=self._hmac_key)

    def _places(self) -> _Places:
        """Return the current files, with the inodes of baseline and live segment."""
        baseline = sibling(self._path, BASELINE)
        return self._closed_names(), _inode(baseline), _inode(self._path)

    def _open_segments(self, stack: ExitStack) -> tuple[list[Segment], BinaryIO | None]:
        # The live segment is opened before the closed ones are listed. If it is closed
        # in between, it is found among them, and what came after it is left out.
        live = _open_regular(self._path)
        if live is None:
            return self._segments(), None
        stack.enter_context(live)
        failpoint("audit.verify.after_live")
        opened = os.fstat(live.fileno()).st_ino
        while True:
            closed = self._segments()
            inodes = [_inode(segment.path) for segment in closed]
            # What was pruned just now, or a name that a healing took back, is not
            # missing.
            if None not in inodes:
                break
        return closed[: inodes.index(opened) if opened in inodes else None], live

    def _segments(self) -> list[Segment]:
        return segments_of(self._path, self._closed_names())

    def _closed_names(self) -> list[ClosedName]:
        try:
            names = os.listdir(self._path.parent)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise self._unreadable(error) from error
        return closed_names(self._path.name, names)


class _Seen:
    """
    Records that were shown, and what shows the next ones.

    Args:
        look: Called with each new record.

        seq: The newest record that was shown.

        leaf_hash: Its leaf hash; empty if it was not.
    """

    def __init__(self, look: Look, seq: int, leaf_hash: str) -> None:
        self._look = look
        self.seq = seq
        self._leaf_hash = leaf_hash

    def visit(self, record: bytes, seq: int, leaf_hash: str) -> None:
        """
        Show a good record unless it was.

        Raises:
            AuditTamperedError: It is another one than that which was shown.
        """
        if seq == self.seq and self._leaf_hash not in ("", leaf_hash):
            raise tampered(Reason.CHAIN, seq)
        if seq > self.seq:
            self._look(record, seq)
            self.seq, self._leaf_hash = seq, leaf_hash


class _BusySegments(StoredSegments):
    """Segments of a log that another process may be writing."""

    read_head: Callable[[], StoredHead | None]
    _tried = -1

    def has_grown(self, follower: Follower, /) -> bool:
        """Return whether what was being written just now may be whole by now."""
        if not self.is_live:
            return False
        before, self._tried = self._tried, self.live.size
        return before != self.live.size or self._was_opened_since(follower)

    def _was_opened_since(self, follower: Follower) -> bool:
        # A log that was closed when its mark was read may be in use by now.
        now, then, mark = self.read_head(), self.head, follower.mark
        if now is None or then is None or now.counter == then.counter:
            return False
        if mark is None or not mark.clean:
            return False
        follower.mark = replace(mark, clean=False)
        return True


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
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise ConfigurationError(f"{path} is not a regular file.", path=str(path))
