# SPDX-License-Identifier: MIT
"""
Pruning of the oldest segments of an audit log in files.

What is kept of them is staged first, where it does not count. Then the record of the
prune is written, and only when that is durable does the new baseline take the place of
the old one. From then on the records before are gone, whether or not their files still
are: those are removed oldest first, and what an interruption leaves of them goes with
the next start or prune.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO, Final

from hsm_core._internal.audit.baseline import Baseline, check_baseline, known_keys
from hsm_core._internal.audit.pruning import gather
from hsm_core._internal.audit.record import MAX_LINE_BYTES, Reason, event_of, tampered
from hsm_core._internal.lib.failpoints import failpoint
from hsm_core._internal.stores.filesystem.audit_files import (
    audit_errors,
    baseline_name,
    check_file,
    closed_names,
    fragment_names,
    open_reader,
    write_all,
)
from hsm_core._internal.stores.filesystem.audit_segments import Segments
from hsm_core._internal.stores.filesystem.files import list_directory
from hsm_core._internal.stores.filesystem.opening import open_no_follow, sync_directory
from hsm_core.errors import AuditTamperedError
from hsm_core.model import PruneDetail
from hsm_core.protocols import KnownKey

_CHUNK: Final = 1024 * 1024


class BaselineFile:
    """
    Baseline file; a new one is staged beside it, and renamed over it later.

    Args:
        live: The live segment of the trail.

        log_id: 32 hex digits.

        hmac_key: Key of the trail.
    """

    def __init__(self, live: Path, log_id: str, hmac_key: bytes) -> None:
        self._path = live.with_name(baseline_name(live.name))
        self._staged = live.with_name(f"{self._path.name}.new")
        self._log_id = log_id
        self._hmac_key = hmac_key

    def read(self) -> Baseline | None:
        """
        Return the baseline that counts, checked, or None if there is none.

        Raises:
            AuditTamperedError: It was changed.
            UnsafeFileModeError: Others could have changed it.
            StoreUnavailableError: It can't be examined.
            OSError: It can't be read.
        """
        return self._checked(self._path)

    def read_staged(self) -> Baseline | None:
        """
        Return the one that is staged, or None if there is none that is whole.

        Raises:
            UnsafeFileModeError: Others could have changed it.
            StoreUnavailableError: It can't be examined.
            OSError: It can't be read.
        """
        try:
            return self._checked(self._staged)
        except AuditTamperedError:
            # Torn, so no record tells of it: that is written later.
            return None

    def _checked(self, path: Path) -> Baseline | None:
        if not check_file(path):
            return None
        with open_reader(path) as file:
            return self._check(file)

    def _check(self, file: BinaryIO) -> Baseline:
        lines = _lines(file)
        return check_baseline(lines, log_id=self._log_id, hmac_key=self._hmac_key)

    def open(self) -> BinaryIO:
        """
        Open the one that counts.

        Raises:
            AuditTamperedError: It is gone.
            OSError: It can't be opened.
        """
        try:
            return open_reader(self._path)
        except FileNotFoundError:
            raise tampered(Reason.BASELINE, 0) from None

    def known_in(self, file: BinaryIO, baseline: Baseline) -> Iterator[KnownKey]:
        """
        Return the keys in a file that was opened, as they are read.

        Raises:
            AuditTamperedError: It is not *baseline*.
            OSError: It can't be read.
        """
        if self._check(file) != baseline:
            raise tampered(Reason.BASELINE, 0)
        file.seek(0)
        yield from known_keys(_lines(file))

    def stage(self, lines: Iterable[bytes]) -> None:
        """
        Write a baseline that does not count yet, durably.

        Raises:
            OSError: It can't be written.
            StoreUnavailableError: Its name can't be made durable.
        """
        self.discard()
        descriptor = open_no_follow(self._staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        try:
            for chunk in _chunks(lines):
                write_all(descriptor, chunk)
            failpoint("audit.prune.before_baseline_sync")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        sync_directory(self._staged.parent)

    def adopt(self) -> None:
        """
        Let the staged one count, durably.

        Raises:
            OSError: It can't be renamed.
            StoreUnavailableError: That can't be made durable.
        """
        self.put_in_place()
        self.settle()

    def put_in_place(self) -> None:
        """
        Give the staged one its name, if it has not got it yet.

        Raises:
            OSError: It can't be renamed.
        """
        with suppress(FileNotFoundError):
            os.rename(self._staged, self._path)

    def settle(self) -> None:
        """
        Make durable what was put in place.

        Raises:
            StoreUnavailableError: It can't be.
        """
        sync_directory(self._path.parent)

    def discard(self) -> None:
        """
        Remove what is staged.

        Raises:
            OSError: It can't be removed.
        """
        with suppress(FileNotFoundError):
            os.unlink(self._staged)


def _lines(file: BinaryIO) -> Iterator[bytes]:
    return iter(lambda: file.readline(MAX_LINE_BYTES + 1), b"")


def _chunks(lines: Iterable[bytes]) -> Iterator[bytes]:
    gathered, size = [], 0
    for line in lines:
        gathered.append(line)
        size += len(line)
        if size >= _CHUNK:
            yield b"".join(gathered)
            gathered, size = [], 0
    yield b"".join(gathered)


_BLOCK: Final = 1000


class SegmentPruner:
    """
    Prunes an open audit log, one thread at a time; any thread may read the baseline.

    Args:
        live: The live segment's path.

        segments: All segments.

        hmac_key: Key of the trail.

        log_id: 32 hex digits.

        baseline: What counts now.
    """

    def __init__(
        self,
        live: Path,
        segments: Segments,
        *,
        hmac_key: bytes,
        log_id: str,
        baseline: Baseline | None,
    ) -> None:
        self._live = live
        self._segments = segments
        self._hmac_key = hmac_key
        self._log_id = log_id
        self._file = BaselineFile(live, log_id, hmac_key)
        self._baseline = baseline
        self._staged: Baseline | None = None
        self._guard = threading.Lock()

    @property
    def first_seq(self) -> int:
        """The oldest record that counts."""
        return self._baseline.header.next_seq if self._baseline else 0

    def known(self) -> Iterator[KnownKey]:
        """
        Return the recorded state of each key in pruned records.

        Raises:
            AuditTamperedError: It was changed since the trail was opened.
            AuditUnavailableError: It can't be read.
        """
        with self._guard:
            baseline = self._baseline
            if baseline is None:
                return
            with audit_errors():
                file = self._file.open()
        with file, audit_errors():
            yield from self._file.known_in(file, baseline)

    def prune(
        self,
        end: int,
        policy: str,
        head: int,
        lines: Callable[[int, int], Sequence[bytes]],
        record: Callable[[PruneDetail], None],
    ) -> PruneDetail | None:
        """
        Remove the segments before *end*.

        Args:
            end: All from this record on stay.

            policy: By which policy.

            head: The newest record.

            lines: Reads records.

            record: Writes the record of the prune, durably.

        Returns:
            What was recorded; None if no whole segment lies before *end*.

        Raises:
            AuditTamperedError: A record that would be removed is bad; none was.
            AuditUnavailableError: It can't be recorded; or a removal failed.
        """
        self._finish(head, lines)
        end = self._segments.boundary(end)
        if end <= self.first_seq:
            return None
        staged, content = gather(
            lines,
            log_id=self._log_id,
            hmac_key=self._hmac_key,
            baseline=self._baseline,
            keys=self.known(),
            next_seq=end,
            policy=policy,
            after_seq=head,
        )
        with audit_errors():
            self._file.stage(content)
        failpoint("audit.prune.after_baseline")
        self._staged = staged
        record(staged.detail)
        failpoint("audit.prune.after_record")
        self._adopt(staged)
        self._remove()
        return staged.detail

    def _finish(self, head: int, lines: Callable[[int, int], Sequence[bytes]]) -> None:
        """Finish an earlier prune, if its record was written."""
        staged = self._staged
        if staged is not None and _is_recorded(staged, head, lines):
            self._adopt(staged)
        self._staged = None
        self._remove()

    def _adopt(self, staged: Baseline) -> None:
        with self._guard, audit_errors():
            self._file.put_in_place()
            # It is what readers find from now on; only what it tells of must not go
            # before that is durable.
            self._baseline = staged
            self._file.settle()
            self._staged = None
        failpoint("audit.prune.after_adoption")

    def _remove(self) -> None:
        if self._baseline is None:
            return
        self._segments.forget(self.first_seq)
        with audit_errors():
            remove_files(self._live, self.first_seq)


def _is_recorded(
    staged: Baseline, head: int, lines: Callable[[int, int], Sequence[bytes]]
) -> bool:
    for start in range(staged.header.after_seq + 1, head + 1, _BLOCK):
        found = lines(start, min(_BLOCK, head + 1 - start))
        events = (event_of(line, seq) for seq, line in enumerate(found, start))
        if any(event.detail == staged.detail for event in events):
            return True
    return False


def remove_files(live: Path, first_seq: int) -> None:
    """
    Remove what lies beside the live segment of records before *first_seq*.

    Raises:
        OSError: A file can't be removed.
        StoreUnavailableError: The removal can't be made durable.
    """
    names = list_directory(live.parent)[1]
    old = [
        name.of(live.name)
        for name in closed_names(live.name, names)
        if name.first_seq < first_seq
    ]
    # Oldest first, so that what is left is a trail that begins later.
    old += [
        name.of(live.name)
        for name in fragment_names(live.name, names)
        if name.seq < first_seq
    ]
    for name in old:
        os.unlink(live.with_name(name))
        failpoint("audit.prune.after_unlink")
    if old:
        sync_directory(live.parent)
        failpoint("audit.prune.after_removal")
