# SPDX-License-Identifier: MIT
"""The segments of a trail: written at the end, read anywhere, closed when full."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from hsm_core._internal.audit.naming import ClosedName
from hsm_core._internal.audit.reasons import Reason, tampered
from hsm_core._internal.audit.record import MAX_LINE_BYTES
from hsm_core._internal.failpoints import failpoint
from hsm_core._internal.stores.filesystem.audit_files import (
    audit_errors,
    create_file,
    is_still_at,
    open_reader,
    write_all,
)
from hsm_core._internal.stores.filesystem.files import path_exists, sync_directory
from hsm_core.errors import AuditUnavailableError

__all__ = ["STRIDE", "Segment", "Segments"]

STRIDE: Final = 128
"""Every so many records, the offset of a line is kept in memory."""

_MAX_LINE: Final = MAX_LINE_BYTES + 1


@dataclass(slots=True)
class Segment:
    """
    One file of the trail.

    Attributes:
        number: From 1.
        first_seq: Sequence number of its first record.
        count: How many records it holds.
        size: Bytes that they take.
        offsets: Where every `STRIDE`-th line begins; None if not known yet.
    """

    path: Path
    number: int
    first_seq: int
    count: int = 0
    size: int = 0
    offsets: list[int] | None = field(default_factory=list)

    def add(self, lengths: Iterable[int]) -> None:
        """Take more lines into account, given their lengths with newline."""
        count, size, offsets = self.count, self.size, self.offsets
        for length in lengths:
            if count % STRIDE == 0 and offsets is not None:
                offsets.append(size)
            count += 1
            size += length
        self.count, self.size = count, size


class Segments:
    """
    All segments of an open trail.

    One thread writes; any thread reads what was written.

    Args:
        closed: The closed segments, in order.

        live: The live one.

        descriptor: The live one, open for appending; taken over.
    """

    def __init__(self, closed: list[Segment], live: Segment, descriptor: int) -> None:
        self._all = [*closed, live]
        self._descriptor = descriptor
        self._guard = threading.Lock()

    @property
    def live(self) -> Segment:
        """The live segment."""
        return self._all[-1]

    def write(self, lines: list[bytes]) -> None:
        """
        Append lines to the live segment and let readers see them.

        Raises:
            OSError: They can't be written; some may have been, in part.
            AuditUnavailableError: The file was moved or replaced.
        """
        failpoint("audit.before_write")
        write_all(self._descriptor, b"".join(lines))
        failpoint("audit.after_write")
        self._check_place()
        with self._guard:
            self.live.add(map(len, lines))

    def sync(self) -> None:
        """
        Make what was written durable.

        Raises:
            OSError: It may not be, and never will be known to be.
            AuditUnavailableError: The file was moved or replaced.
        """
        failpoint("audit.before_sync")
        os.fdatasync(self._descriptor)
        self._check_place()
        failpoint("audit.after_sync")

    def _check_place(self) -> None:
        if not is_still_at(self._descriptor, self.live.path):
            raise AuditUnavailableError("The file of the audit trail was moved.")

    def rotate(self) -> None:
        """
        Close the live segment, which is synced, and begin a new one.

        Raises:
            OSError: It can't be renamed, or the new one not be made.
            StoreUnavailableError: The names can't be made durable.
            AuditUnavailableError: Something else has the closed segment's name.
        """
        full = self.live
        path = full.path
        name = ClosedName(full.number, full.first_seq).of(path.name)
        closed = path.with_name(name)
        if path_exists(closed):
            raise AuditUnavailableError("A closed segment's name is taken.")
        failpoint("audit.rotate.before_rename")
        with self._guard:
            os.rename(path, closed)
            full.path = closed
        failpoint("audit.rotate.after_rename")
        sync_directory(path.parent)
        failpoint("audit.rotate.after_directory_sync")
        descriptor = create_file(path)
        fresh = Segment(path, full.number + 1, full.first_seq + full.count)
        with self._guard:
            self._all.append(fresh)
        os.close(self._descriptor)
        self._descriptor = descriptor
        failpoint("audit.rotate.after_create")

    def read(self, start_seq: int, limit: int) -> list[bytes]:
        """
        Return up to *limit* written lines from *start_seq* on, without newline.

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
            offsets = segment.offsets
        with file:
            if offsets is None:
                offsets = segment.offsets = _index(file)
            step, skip = divmod(seq - segment.first_seq, STRIDE)
            if step >= len(offsets):
                raise tampered(Reason.SHORTER, seq)
            file.seek(offsets[step])
            for _ in range(skip):
                file.readline(_MAX_LINE)
            lines = [file.readline(_MAX_LINE) for _ in range(seq, last)]
        for position, line in enumerate(lines, seq):
            if not line.endswith(b"\n"):
                raise tampered(Reason.SHORTER, position)
        return [line[:-1] for line in lines]

    def _find(self, seq: int) -> Segment | None:
        found = next(s for s in reversed(self._all) if s.first_seq <= seq)
        return found if seq < found.first_seq + found.count else None

    def close(self) -> None:
        """Close the live file; readers may go on."""
        os.close(self._descriptor)


def _index(file: BinaryIO) -> list[int]:
    offsets, offset, count = [], 0, 0
    while line := file.readline(_MAX_LINE):
        if count % STRIDE == 0:
            offsets.append(offset)
        count += 1
        offset += len(line)
    return offsets
