# SPDX-License-Identifier: MIT
"""
Audit medium of files: segments of lines, and the head mark beside them.

Healing of the live segment after a failure, without losing durable records.

A **failed write** leaves garbage behind the last whole line. It is cut off, and the
rest is written again, on the same handle. Records that we did not write stay: then two
processes write this log, and neither may go on.

A **failed sync** means that what was written since the last good one may be lost
whenever the kernel likes, and that a second sync would prove nothing. All lines that
are not known to be durable go to a new segment, and the old one is closed:

1. ``audit.log.new`` is written with these lines and synced;
2. the live segment gets its closed name as a second, hard link, and the directory is
   synced;
3. ``audit.log.new`` is renamed over ``audit.log``, and the directory is synced.

So the closed segment may go on behind the first record of the next one, with the same
records, with records that nobody was promised, or torn: **where two segments overlap,
the later one wins from its first record on.** A crash between 2 and 3 leaves the live
segment under two names, of which a start removes the closed one; a crash before 2
leaves an ``audit.log.new`` that means nothing. A live segment that holds nothing
durable is not closed: the new one takes its place. So it is with a small one that an
earlier healing began, lest a disk that fails for hours leave a file each second; what
is durable of it is copied, and each record of the copy is held against the chain.

A **moved or removed file** is made again from what is durable, which is read through
the handle that is still open, and from the lines that are not; but never over a file of
somebody else, unless it is empty. So is a file whose name may not be durable.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import ClassVar, Final

from hsm_core._internal.audit.facts import MAX_LINE_BYTES, START, Record
from hsm_core._internal.audit.head_mark import HeadMark
from hsm_core._internal.audit.medium import Cause, MediumError, Tail
from hsm_core._internal.audit.record import claimed_seq, is_chain, leaf_hash
from hsm_core._internal.lib.failpoints import failpoint
from hsm_core._internal.stores.filesystem.audit_files import (
    NEW,
    audit_errors,
    close_quietly,
    is_full,
    is_still_at,
    is_vacant,
    medium_errors,
    write_all,
)
from hsm_core._internal.stores.filesystem.audit_head import (
    BaselineFile,
    HeadFile,
    remove_files,
)
from hsm_core._internal.stores.filesystem.audit_segments import Segment, Segments
from hsm_core._internal.stores.filesystem.opening import (
    LockFile,
    check_private,
    open_no_follow,
    sibling,
    sync_directory,
)

_CHUNK: Final = 1024 * 1024
_LEFTOVER_BYTES: Final = 64 * 1024
"""A segment that a healing began is closed by the next one if it is longer."""

_LOOK_SECONDS: Final = 1.0
"""Seconds between checks that all files of the log are in place."""


def heal(segments: Segments, tail: Tail) -> None:
    """
    Make everything up to the end of *tail* durable, in the way that helps.

    Raises:
        MediumError: It can't be; nothing durable was lost.
    """
    live = segments.live
    with medium_errors(Cause.MOVED):
        check_private(live.path.parent)
        for segment in segments.closed:
            check_private(segment.path)
        in_place = segments.is_in_place()
        if not in_place and not is_vacant(live.path):
            raise MediumError(Cause.MOVED)
    _check_durable(segments)
    if segments.names_failed or not in_place:
        _replace(segments, tail)
    elif not segments.sync_failed:
        _cut_back(segments, tail)
    elif segments.durable.count and not _is_leftover(segments):
        _fork(segments, tail)
    else:
        _replace(segments, tail)


def _check_durable(segments: Segments) -> None:
    """Refuse to go on from a file whose durable part was changed by others."""
    durable = segments.durable
    if not durable.count:
        return
    start = max(durable.size - MAX_LINE_BYTES - 2, 0)
    with medium_errors(Cause.WRITE):
        end = os.pread(segments.descriptor, durable.size - start, start)
    last = end.removesuffix(b"\n").rpartition(b"\n")[2]
    is_whole = len(end) == durable.size - start and end.endswith(b"\n")
    if not is_whole or leaf_hash(last) != durable.leaf_hash:
        raise MediumError(Cause.MOVED)


def _is_leftover(segments: Segments) -> bool:
    """Return whether a healing began the live segment, and it can be copied safely."""
    durable = segments.durable
    if not segments.live.remade or durable.size > _LEFTOVER_BYTES:
        return False
    with medium_errors(Cause.WRITE):
        data = b"".join(_durable_chunks(segments))
    return is_chain(data.split(b"\n")[:-1], durable.leaf_hash)


def _cut_back(segments: Segments, tail: Tail) -> None:
    """Write on the same handle what is not there wholly."""
    live, durable = segments.live, segments.durable
    with medium_errors(Cause.WRITE):
        size = os.fstat(segments.descriptor).st_size
        if size < live.size:
            with segments.changing():
                live.cut(durable.count, durable.size)
        live.facts.cut(live.next_seq)
        rest = live.trimmed(_rest(tail, live, live.count))
        if size > live.size:
            _refuse_records_of_others(segments, size, b"".join(rest))
            os.ftruncate(segments.descriptor, live.size)
        failpoint("audit.heal.after_cut")
        segments.write_trimmed(rest)
    with medium_errors(Cause.SYNC):
        segments.prepare_sync(tail.mark.leaf_hash)
        segments.sync()


def _refuse_records_of_others(segments: Segments, size: int, ours: bytes) -> None:
    """Refuse to cut off what another writer of this log may have answered for."""
    begins = segments.live.size
    extra = os.pread(segments.descriptor, min(size - begins, _CHUNK), begins)
    line = extra.partition(b"\n")[0]
    is_line = claimed_seq(line) is not None or line.startswith(START)
    if not ours.startswith(extra) and b"\n" in extra and is_line:
        raise MediumError(Cause.MOVED)


def _fork(segments: Segments, tail: Tail) -> None:
    """Close the live segment as it is, and go on in a new one."""
    live, durable = segments.live, segments.durable
    path = live.path
    first_seq = live.first_seq + durable.count
    new = Segment(path, live.number + 1, first_seq, remade=True)
    lines = new.trimmed(_rest(tail, live, durable.count))
    descriptor = _written_anew(path, lines)
    with _discarding(path, descriptor):
        with medium_errors(Cause.WRITE):
            _link(path, live.closed_path)
        failpoint("audit.heal.after_link")
        with medium_errors(Cause.SYNC):
            sync_directory(path.parent)
        failpoint("audit.heal.after_link_sync")
        with medium_errors(Cause.WRITE), segments.changing() as every:
            os.rename(_temporary(path), path)
            live.path = live.closed_path
            live.cut(durable.count, durable.size)
            every.append(new)
    segments.adopt(descriptor)
    _settle(segments, lines, tail)


def _replace(segments: Segments, tail: Tail) -> None:
    """Make the live segment again, from what is durable of it and the tail."""
    live, durable = segments.live, segments.durable
    path = live.path
    first_seq = live.first_seq + durable.count
    facts = live.facts.copy(first_seq)
    lines = [
        facts.trimmed(record, seq)
        for seq, record in enumerate(_rest(tail, live, durable.count), first_seq)
    ]
    descriptor = _written_anew(path, chain(_durable_chunks(segments), lines))
    with _discarding(path, descriptor):
        with medium_errors(Cause.WRITE), segments.changing():
            os.rename(_temporary(path), path)
            live.cut(durable.count, durable.size)
            live.facts = facts
    # A link that `_fork` made, before it could not go on, is in the way now.
    with medium_errors(Cause.WRITE), suppress(FileNotFoundError):
        held = segments.descriptor
        if held >= 0 and is_still_at(held, live.closed_path):
            os.unlink(live.closed_path)
    segments.adopt(descriptor, durable)
    _settle(segments, lines, tail)


def _settle(segments: Segments, lines: Sequence[bytes], tail: Tail) -> None:
    """Make the name of the new live segment durable, and let readers see it."""
    segments.names_failed = True
    failpoint("audit.heal.after_rename")
    with medium_errors(Cause.SYNC):
        sync_directory(segments.live.path.parent)
    segments.names_failed = False
    failpoint("audit.heal.after_rename_sync")
    segments.take_as_durable(lines, tail.mark.leaf_hash)


def _rest(tail: Tail, live: Segment, count: int) -> Sequence[Record]:
    """Return what the first *count* records of the live segment lack."""
    return tail.records[live.first_seq + count - tail.first_seq :]


def _durable_chunks(segments: Segments) -> Iterator[bytes]:
    offset, end = 0, segments.durable.size
    while offset < end:
        chunk = os.pread(segments.descriptor, min(_CHUNK, end - offset), offset)
        if not chunk:
            raise OSError(errno.EIO, "the segment is shorter than it was")
        offset += len(chunk)
        yield chunk


def _written_anew(path: Path, chunks: Iterable[bytes]) -> int:
    """Write a new file beside *path*, synced, and return it open."""
    temporary = _temporary(path)
    with medium_errors(Cause.WRITE):
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        descriptor = open_no_follow(
            temporary, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL
        )
    with _discarding(path, descriptor):
        with medium_errors(Cause.WRITE):
            for chunk in chunks:
                write_all(descriptor, chunk)
        failpoint("audit.heal.before_sync")
        with medium_errors(Cause.SYNC):
            os.fsync(descriptor)
    return descriptor


@contextmanager
def _discarding(path: Path, descriptor: int) -> Iterator[None]:
    """Throw a new file away after a failure: it was synced, or it was not."""
    try:
        yield
    except BaseException:
        close_quietly(descriptor)
        with suppress(OSError):
            os.unlink(_temporary(path))
        raise


def _temporary(path: Path) -> Path:
    return sibling(path, NEW)


def _link(path: Path, closed: Path) -> None:
    """Link the live segment under its closed name, replacing an existing link."""
    with suppress(FileNotFoundError):
        if not os.path.samestat(os.lstat(path), os.lstat(closed)):
            raise OSError(
                errno.EEXIST, "the name of a closed segment is already in use"
            )
        os.unlink(closed)
    os.link(path, closed, follow_symlinks=False)


class FileMedium:
    """
    An `AuditMedium` in files.

    Args:
        segments: Segments for the records.

        head: File of the head mark.

        lock: That of the one writer; released by `close`.

        segment_bytes: Size above which a segment is closed.

        baselines: File of the baseline.
    """

    is_shared: ClassVar = False

    def __init__(
        self,
        segments: Segments,
        head: HeadFile,
        lock: LockFile,
        segment_bytes: int,
        baselines: BaselineFile,
    ) -> None:
        self._baselines = baselines
        self._segments = segments
        self._head = head
        self._lock = lock
        self._segment_bytes = segment_bytes
        self._look_at = time.monotonic() + _LOOK_SECONDS
        self._prepared = HeadMark()

    def write(self, records: Sequence[Record], mark: HeadMark, /) -> None:
        """
        Append records; see `AuditMedium.write`.

        Raises:
            MediumError: They may have been written in part, or wholly.
        """
        try:
            self._segments.write(records)
        except OSError as error:
            cause = Cause.FULL if is_full(error) else Cause.WRITE
            raise MediumError(cause) from error

    def prepare_sync(self, mark: HeadMark, /) -> None:
        """
        Note that the next sync makes durable what was written so far, up to *mark*.

        Raises:
            MediumError: The lock or the live segment was moved, replaced or changed.
        """
        with medium_errors(Cause.WRITE):
            if not self._lock.is_in_place():
                # Another process may write this log by now.
                raise MediumError(Cause.MOVED)
        self._segments.prepare_sync(mark.leaf_hash)
        self._prepared = mark

    def sync(self) -> None:
        """
        Make what was noted durable, then write the head mark.

        Raises:
            MediumError: It may not be.
        """
        with medium_errors(Cause.SYNC):
            self._segments.sync()
            self._head.write(self._prepared)
            failpoint("audit.after_mark")

    def due(self) -> float:
        """Return when the head mark, a full segment or a look is due."""
        if self._is_full():
            return 0.0
        return min(self._look_at, self._head.due())

    def tidy(self) -> None:
        """
        Sync the head mark, close a full segment, check that all files are in place.

        Raises:
            MediumError: It failed.
        """
        now = time.monotonic()
        if self._head.due() <= now:
            with medium_errors(Cause.SYNC):
                self._head.sync()
        if self._look_at <= now:
            self._look_at = now + _LOOK_SECONDS
            self._segments.check_place()
            with medium_errors(Cause.MOVED):
                if not (self._head.is_in_place() and self._lock.is_in_place()):
                    raise MediumError(Cause.MOVED)
        self._close_full()

    def heal(self, tail: Tail, cause: Cause, /) -> None:
        """
        Make everything up to the end of *tail* durable; see `heal`.

        Raises:
            MediumError: It still can't be; nothing durable was lost.
        """
        with medium_errors(Cause.MOVED):
            self._lock.renew()
        heal(self._segments, tail)
        with medium_errors(Cause.SYNC):
            self._head.heal(tail.mark)
        # What could not be closed before must not fail again right afterwards.
        self._close_full()

    def finish(self, mark: HeadMark, /) -> None:
        """
        Note a clean end in both slots.

        Raises:
            MediumError: The live segment was moved, or the note may not be durable.
        """
        self._segments.check_place()
        with medium_errors(Cause.SYNC):
            failpoint("audit.before_clean_mark")
            self._head.finish(mark)

    def read(self, start_seq: int, limit: int, /) -> list[bytes]:
        """
        Return up to *limit* written lines from *start_seq* on, without newline.

        Raises:
            AuditUnavailableError: A segment can't be read.
            AuditTamperedError: A segment holds fewer lines than were written.
        """
        return self._segments.read(start_seq, limit)

    def boundary(self, seq: int, /) -> int:
        """Return where the segment begins that holds *seq*."""
        return self._segments.boundary(seq)

    def stage(self, _next_seq: int, lines: Sequence[bytes], /) -> None:
        """
        Stage a baseline beside the one that counts.

        Raises:
            AuditUnavailableError: It can't be written.
        """
        with audit_errors():
            self._baselines.stage(lines)
        failpoint("audit.prune.after_baseline")

    def adopt_with(
        self, record_seq: int, next_seq: int, adopted: Callable[[], None], /
    ) -> None:
        """Do nothing: a rename can't be one step with the record."""

    def adopt(self) -> None:
        """
        Replace the baseline by the staged one.

        Raises:
            AuditUnavailableError: It can't be renamed.
        """
        with audit_errors():
            self._baselines.put_in_place()

    def settle(self) -> None:
        """
        Make the replacement durable.

        Raises:
            AuditUnavailableError: It may not be.
        """
        with audit_errors():
            self._baselines.settle()
        failpoint("audit.prune.after_adoption")

    @contextmanager
    def open_baseline(
        self, _next_seq: int, /
    ) -> Iterator[Callable[[], Iterable[bytes]]]:
        """
        Open the baseline that counts.

        Raises:
            AuditTamperedError: It is missing.
            AuditUnavailableError: It can't be read.
        """
        with audit_errors(), self._baselines.open() as lines:
            yield lines

    def remove(self, first_seq: int, /) -> None:
        """
        Remove the closed segments before *first_seq*, and their fragments.

        Raises:
            AuditUnavailableError: A file can't be removed.
        """
        if first_seq:
            self._segments.forget(first_seq)
            with audit_errors():
                remove_files(self._segments.live.path, first_seq)

    def close(self) -> None:
        """Close the files and release the lock; readers may go on."""
        self._head.close()
        self._segments.close()
        self._lock.release()

    def _is_full(self) -> bool:
        return self._segments.live.size > self._segment_bytes

    def _close_full(self) -> None:
        if not self._is_full():
            return
        with medium_errors(Cause.SYNC):
            self._head.sync()
        with medium_errors(Cause.WRITE):
            self._segments.rotate()
