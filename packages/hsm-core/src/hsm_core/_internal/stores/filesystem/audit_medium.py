# SPDX-License-Identifier: MIT
"""Audit medium of files: segments of lines, and the head mark beside them."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from hsm_core._internal.audit.mark import HeadMark
from hsm_core._internal.lib.failpoints import failpoint
from hsm_core._internal.stores.filesystem.audit_files import medium_errors
from hsm_core._internal.stores.filesystem.audit_head import HeadFile
from hsm_core._internal.stores.filesystem.audit_healing import heal
from hsm_core._internal.stores.filesystem.audit_segments import Segments
from hsm_core._internal.stores.filesystem.opening import LockFile
from hsm_core._internal.stores.trail.medium import Cause, MediumError, Tail

_HEAD_SECONDS: Final = 1.0
_LOOK_SECONDS: Final = 1.0
"""Seconds between checks that all files of the log are in place."""

_NEVER: Final = float("inf")


class FileMedium:
    """
    A `TrailMedium` in files.

    Args:
        segments: Segments for the records.

        head: File of the head mark.

        lock: That of the one writer; released by `close`.

        segment_bytes: Size above which a segment is closed.
    """

    def __init__(
        self, segments: Segments, head: HeadFile, lock: LockFile, segment_bytes: int
    ) -> None:
        self._segments = segments
        self._head = head
        self._lock = lock
        self._segment_bytes = segment_bytes
        self._look_at = time.monotonic() + _LOOK_SECONDS

    def write(self, lines: Sequence[bytes], mark: HeadMark, /, *, sync: bool) -> bool:
        """
        Append lines; see `TrailMedium.write`. The sync is a step of its own.

        Raises:
            MediumError: They may have been written in part, or wholly.
        """
        with medium_errors(Cause.WRITE):
            if not self._lock.is_in_place():
                # Another process may write this trail by now.
                raise MediumError(Cause.MOVED)
            self._segments.write(lines)
        return False

    def sync(self, mark: HeadMark, /) -> None:
        """
        Make all that was written durable, then write the head mark.

        Raises:
            MediumError: It may not be.
        """
        with medium_errors(Cause.SYNC):
            self._segments.sync(mark.leaf_hash)
            self._head.write(mark)
            failpoint("audit.after_mark")

    def due(self) -> float:
        """Return when the head mark, a full segment or a look is due."""
        if self._is_full():
            return 0.0
        since = self._head.dirty_since
        if since is None or since > self._look_at - _HEAD_SECONDS:
            return self._look_at
        return since + _HEAD_SECONDS

    def tidy(self) -> None:
        """
        Sync the head mark, close a full segment, check that all files are in place.

        Raises:
            MediumError: It failed.
        """
        now = time.monotonic()
        if self._head_at() <= now:
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
        Make everything up to the end of *tail* durable; see `audit_healing`.

        Raises:
            MediumError: It still can't be; nothing durable was lost.
        """
        with medium_errors(Cause.MOVED):
            self._lock.renew()
        heal(self._segments, tail)
        with medium_errors(Cause.SYNC):
            if self._head.failed or not self._head.is_in_place():
                self._head.renew(tail.mark)
            else:
                self._head.write(tail.mark)
                self._head.sync()
        # What could not be closed before must not fail again right afterwards.
        self._close_full()

    def finish(self, mark: HeadMark, /) -> None:
        """
        Make all durable and note a clean end in both slots.

        Raises:
            MediumError: It may not be.
        """
        with medium_errors(Cause.SYNC):
            self._segments.sync(mark.leaf_hash)
            failpoint("audit.before_clean_mark")
            clean = replace(mark, clean=True)
            # Both slots, so that neither is a way back to an unclean end.
            self._head.write(clean)
            self._head.write(clean)
            self._head.sync()

    def read(self, start_seq: int, limit: int, /) -> list[bytes]:
        """
        Return up to *limit* written lines from *start_seq* on, without newline.

        Raises:
            AuditUnavailableError: A segment can't be read.
            AuditTamperedError: A segment holds fewer lines than were written.
        """
        return self._segments.read(start_seq, limit)

    def close(self) -> None:
        """Close the files and release the lock; readers may go on."""
        self._head.close()
        self._segments.close()
        self._lock.release()

    def _head_at(self) -> float:
        since = self._head.dirty_since
        return _NEVER if since is None else since + _HEAD_SECONDS

    def _is_full(self) -> bool:
        segments = self._segments
        return segments.is_durable and segments.live.size > self._segment_bytes

    def _close_full(self) -> None:
        if not self._is_full():
            return
        with medium_errors(Cause.SYNC):
            self._head.sync()
        with medium_errors(Cause.WRITE):
            self._segments.rotate()
