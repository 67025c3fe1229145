# SPDX-License-Identifier: MIT
"""Audit log segments: appended to, read anywhere, closed when full."""

from __future__ import annotations

import errno
import mmap
import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from hsm_core._internal.audit.facts import (
    MAX_LINE_BYTES,
    START,
    FactsCache,
    FactsTrack,
    Record,
)
from hsm_core._internal.audit.medium import Cause, MediumError
from hsm_core._internal.audit.reasons import Reason, tampered
from hsm_core._internal.lib import failpoints
from hsm_core._internal.lib.failpoints import failpoint
from hsm_core._internal.stores.filesystem.audit_files import (
    ClosedName,
    audit_errors,
    close_quietly,
    create_file,
    is_still_at,
    open_reader,
    write_all,
)
from hsm_core._internal.stores.filesystem.opening import path_exists, sync_directory
from hsm_core.errors import AuditUnavailableError, HSMError

STRIDE: Final = 128
"""Interval of records whose line offsets are kept in memory."""

_MAX_LINE: Final = MAX_LINE_BYTES + 1


class Segment(msgspec.Struct):
    """
    One file of the audit log.

    Attributes:
        number: From 1.
        first_seq: Sequence number of its first record.
        count: How many records it holds.
        size: Bytes that they take.
        offsets: Where every `STRIDE`-th line begins; None if not known yet.
        remade: Whether a healing started it.
        facts: Facts lines that were written to it.
    """

    path: Path
    number: int
    first_seq: int
    count: int = 0
    size: int = 0
    offsets: list[int] | None = msgspec.field(default_factory=list)
    remade: bool = False
    facts: FactsTrack = msgspec.field(default_factory=FactsTrack)

    @property
    def next_seq(self) -> int:
        """Sequence number of the record that is written next."""
        return self.first_seq + self.count

    def trimmed(self, records: Sequence[Record]) -> list[bytes]:
        """Return the next records without the facts lines that are here already."""
        trimmed = self.facts.trimmed
        return [trimmed(record, n) for n, record in enumerate(records, self.next_seq)]

    def add(self, lengths: Iterable[int]) -> None:
        """Take more lines into account, given their lengths with newline."""
        count, size, offsets = self.count, self.size, self.offsets
        if offsets is None:
            known = list(lengths)
            self.count, self.size = count + len(known), size + sum(known)
            return
        for length in lengths:
            if count % STRIDE == 0:
                offsets.append(size)
            count += 1
            size += length
        # Last, for readers look at it meanwhile.
        self.size, self.count = size, count

    def cut(self, count: int, size: int) -> None:
        """Drop all but the first *count* lines, which take *size* bytes."""
        self.count, self.size = count, size
        self.facts.cut(self.next_seq)
        if self.offsets is not None:
            del self.offsets[-(-count // STRIDE) :]

    @property
    def closed_path(self) -> Path:
        """Where it lies once it is closed."""
        name = ClosedName(self.number, self.first_seq).of(self.path.name)
        return self.path.with_name(name)


class Durable(msgspec.Struct, frozen=True):
    """
    How much of a segment is durable.

    Attributes:
        leaf_hash: That of the newest durable record, in this segment or before it.
    """

    count: int
    size: int
    leaf_hash: str


class Segments:
    """
    All segments of an open audit log.

    One thread at a time writes, one syncs and heals, any reads what was written.

    Args:
        closed: The closed segments, in order.

        live: The live one, all of it durable.

        descriptor: The live one, open for reading and appending; taken over.

        leaf_hash: Leaf hash of the newest record.

    Attributes:
        descriptor: The live segment, or -1 while there is none.
        durable: How much of the live segment is durable.
        sync_failed: The descriptor's sync failed: nothing that is written to it can be
            called durable any more.
        names_failed: The live segment's name may not be durable.
    """

    def __init__(
        self, closed: list[Segment], live: Segment, descriptor: int, leaf_hash: str
    ) -> None:
        self._all = [*closed, live]
        self._guard = threading.Lock()
        self._changes = 0
        self._facts = FactsCache(self._find_facts)
        self.descriptor = descriptor
        self.durable = self._prepared = Durable(live.count, live.size, leaf_hash)
        self.sync_failed = False
        self.names_failed = False

    @property
    def live(self) -> Segment:
        """The live segment."""
        return self._all[-1]

    @property
    def closed(self) -> list[Segment]:
        """The closed segments, in order."""
        with self._guard:
            return self._all[:-1]

    @contextmanager
    def changing(self) -> Iterator[list[Segment]]:
        """
        Give all segments, to be changed or moved while nobody opens one.

        Readers of earlier opened files get a read error meanwhile.
        """
        with self._guard:
            self._changes += 1
            yield self._all

    def write(self, records: Sequence[Record]) -> None:
        """
        Append records to the live segment and let readers see them.

        Facts lines that are there already are left out.

        Raises:
            OSError: They can't be written; some may have been, in part.
            MediumError: The file was moved, replaced or changed.
        """
        live = self._all[-1]
        if len(records) == 1:
            seq = live.first_seq + live.count
            self.write_trimmed([live.facts.trimmed(records[0], seq)])
        else:
            self.write_trimmed(live.trimmed(records))

    def write_trimmed(self, lines: Sequence[bytes]) -> None:
        """
        Append records without the facts lines that are there; see `write`.

        Raises:
            OSError: They can't be written; some may have been, in part.
            MediumError: Somebody else wrote to the file, or cut it.
        """
        if failpoints.are_watched:
            failpoint("audit.before_write")
        descriptor, live = self.descriptor, self._all[-1]
        data = lines[0] if len(lines) == 1 else b"".join(lines)
        written, size = os.write(descriptor, data), len(data)
        if written != size:
            write_all(descriptor, data[written:])
        if failpoints.are_watched:
            failpoint("audit.after_write")
        size += live.size
        # Appending moves the position to the end of the file.
        if os.lseek(descriptor, 0, os.SEEK_CUR) != size:
            raise MediumError(Cause.MOVED)
        count = live.count
        if count % STRIDE and len(lines) == 1:
            live.size, live.count = size, count + 1
        else:
            live.add(map(len, lines))

    def prepare_sync(self, leaf_hash: str) -> None:
        """
        Note what the next sync makes durable: all that was written so far.

        Args:
            leaf_hash: That of the newest record.

        Raises:
            MediumError: The file was moved, replaced or changed.
        """
        self.check_place()
        self._prepared = Durable(self.live.count, self.live.size, leaf_hash)

    def sync(self) -> None:
        """
        Make durable what was noted.

        Raises:
            OSError: It may not be, and never will be known to be.
        """
        if self.sync_failed:
            raise OSError("an earlier sync of the segment failed")
        try:
            failpoint("audit.before_sync")
            os.fdatasync(self.descriptor)
        except BaseException:
            self.sync_failed = True
            raise
        self.durable = self._prepared
        failpoint("audit.after_sync")

    def is_in_place(self) -> bool:
        """Return whether the live segment's name is still that of the open file."""
        return self.descriptor >= 0 and is_still_at(self.descriptor, self.live.path)

    def check_place(self) -> None:
        """
        Check that the live segment is where it was and as long as we made it.

        Raises:
            MediumError: It was moved, replaced or changed.
        """
        live = self._all[-1]
        try:
            named = os.stat(live.path, follow_symlinks=False)
            opened = os.fstat(self.descriptor)
        except OSError as error:
            raise MediumError(Cause.MOVED) from error
        is_ours = named.st_ino == opened.st_ino and named.st_dev == opened.st_dev
        if not is_ours or opened.st_size != live.size:
            raise MediumError(Cause.MOVED)

    def rotate(self) -> None:
        """
        Close the live segment, which is durable, and begin a new one.

        Raises:
            OSError: It can't be renamed, or the new one not be made.
            StoreUnavailableError: The names can't be made durable.
        """
        full = self.live
        path = full.path
        closed = full.closed_path
        if path_exists(closed):
            raise OSError(
                errno.EEXIST, "the name of a closed segment is already in use"
            )
        failpoint("audit.rotate.before_rename")
        with self.changing() as segments:
            os.rename(path, closed)
            full.path = closed
            full.facts = FactsTrack()
            segments.append(Segment(path, full.number + 1, full.next_seq))
        self.names_failed = True
        self.adopt(-1)
        failpoint("audit.rotate.after_rename")
        sync_directory(path.parent)
        failpoint("audit.rotate.after_directory_sync")
        self.adopt(create_file(path))
        self.names_failed = False
        failpoint("audit.rotate.after_create")

    def adopt(self, descriptor: int, durable: Durable | None = None) -> None:
        """
        Take over another file as the live segment.

        Args:
            descriptor: Open for reading and appending; -1 for none.

            durable: How much of it is durable already; None for nothing.
        """
        old, self.descriptor = self.descriptor, descriptor
        self.durable = durable or Durable(0, 0, self.durable.leaf_hash)
        self.sync_failed = False
        if old >= 0:
            close_quietly(old)

    def take_as_durable(self, lines: Sequence[bytes], leaf_hash: str) -> None:
        """Let readers see lines that are durable in the live segment."""
        live = self.live
        with self._guard:
            live.add(map(len, lines))
        self.durable = Durable(live.count, live.size, leaf_hash)

    def read(self, start_seq: int, limit: int) -> list[bytes]:
        """
        Return up to *limit* written records from *start_seq* on, without newline.

        Raises:
            AuditUnavailableError: A segment can't be read.
            AuditTamperedError: A segment holds fewer lines than were written.
        """
        lines: list[bytes] = []
        with audit_errors():
            while len(lines) < limit:
                found = self._read_one(start_seq + len(lines), limit - len(lines))
                if not found:
                    break
                lines += found
        return lines

    def _read_one(self, seq: int, limit: int) -> list[bytes]:
        with self._guard:
            segment = self._find(seq)
            if segment is None:
                return []
            # Opened under the guard, so that a rename can't come in between.
            file = open_reader(segment.path)
            last = min(segment.first_seq + segment.count, seq + limit)
            offsets, changes = segment.offsets, self._changes
        with file:
            if offsets is None:
                offsets = segment.offsets = _index(file)
            step, skip = divmod(seq - segment.first_seq, STRIDE)
            if step >= len(offsets):
                raise self._shorter(seq, changes)
            behind = -((segment.first_seq - last) // STRIDE)
            end = offsets[behind] if behind < len(offsets) else None
            lines = _entries(file, offsets[step], end, self._facts)
            lines = lines[skip : skip + last - seq]
        if len(lines) < last - seq:
            raise self._shorter(seq + len(lines), changes)
        joined = self._facts.joined
        return [joined(line, number) for number, line in enumerate(lines, seq)]

    def _find_facts(self, digest: bytes, seq: int) -> bytes:
        """Return the facts line that the entry *seq* names, from its segment."""
        with self._guard:
            segment = self._find(seq)
            if segment is None:
                return b""
            file = open_reader(segment.path)
        with file:
            return find_facts(file, digest)

    def _shorter(self, seq: int, changes: int) -> HSMError:
        # What is written again while it is read is not damaged.
        if changes != self._changes:
            return AuditUnavailableError("The audit log is being rewritten. Try again.")
        return tampered(Reason.SHORTER, seq)

    def _find(self, seq: int) -> Segment | None:
        found = next((s for s in reversed(self._all) if s.first_seq <= seq), None)
        return found if found and seq < found.first_seq + found.count else None

    def boundary(self, seq: int) -> int:
        """Return where the segment begins that holds *seq*: all before are closed."""
        with self._guard:
            return max(
                (s.first_seq for s in self._all if s.first_seq <= seq), default=0
            )

    def forget(self, seq: int) -> None:
        """Stop reads of the closed segments that begin before *seq*."""
        with self._guard:
            self._all[:-1] = [s for s in self._all[:-1] if s.first_seq >= seq]

    def close(self) -> None:
        """Close the live file; readers may go on."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            close_quietly(descriptor)


def _index(file: BinaryIO) -> list[int]:
    offsets, begins, offset, count = [], 0, 0, 0
    while line := file.readline(_MAX_LINE):
        offset += len(line)
        if line.startswith(START):
            continue
        if count % STRIDE == 0:
            offsets.append(begins)
        begins = offset
        count += 1
    return offsets


def _entries(
    file: BinaryIO, begin: int, end: int | None, facts: FactsCache
) -> list[bytes]:
    """Return the complete entries of a part, without newline; keep facts lines."""
    file.seek(begin)
    lines = file.read(-1 if end is None else end - begin).split(b"\n")
    del lines[-1]
    entries = [line for line in lines if not line.startswith(START)]
    if len(entries) < len(lines):
        for line in lines:
            if line.startswith(START):
                facts.add(line)
    return entries


def find_facts(file: BinaryIO, digest: bytes) -> bytes:
    """Return the facts line of this hash in a segment, without newline, or nothing."""
    wanted, size = START + digest, os.fstat(file.fileno()).st_size
    if not size:
        return b""
    with mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as content:
        at = 0 if content[: len(wanted)] == wanted else content.find(b"\n" + wanted) + 1
        if not at and content[: len(wanted)] != wanted:
            return b""
        end = content.find(b"\n", at)
        return content[at:end] if end > 0 else b""


def segments_of(live: Path, names: Iterable[ClosedName]) -> list[Segment]:
    """Return closed segments by their names, given the path of the live one."""
    found = [
        Segment(live.with_name(n.of(live.name)), n.number, n.first_seq, offsets=None)
        for n in names
    ]
    for before, after in pairwise(found):
        before.count = after.first_seq - before.first_seq
    return found
