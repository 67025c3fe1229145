# SPDX-License-Identifier: MIT
"""Head mark file: two slots, written in turn after each sync of the audit log."""

from __future__ import annotations

import math
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Final

from hsm_core._internal.audit.head_mark import (
    HEAD_BYTES,
    HeadCodec,
    HeadMark,
    StoredHead,
)
from hsm_core._internal.audit.record import Reason, tampered
from hsm_core._internal.lib.failpoints import failpoint
from hsm_core._internal.stores.filesystem.audit_files import (
    check_file,
    close_quietly,
    is_still_at,
    replace_file,
)
from hsm_core._internal.stores.filesystem.files import read_file
from hsm_core._internal.stores.filesystem.opening import lock_descriptor, open_no_follow
from hsm_core.errors import IntegrityError

_SYNC_SECONDS: Final = 1.0


def read_head(path: Path, hmac_key: bytes) -> StoredHead | None:
    """
    Return the content of a head file, or None if there is none.

    Raises:
        WrongAuditKeyError: It was written with another HMAC key.
        AuditTamperedError: It was altered by another program.
        UnsafeFileModeError: Others could have changed it.
        StoreUnavailableError: It can't be read.
    """
    if not check_file(path):
        return None
    try:
        content = read_file(path, HEAD_BYTES)
    except IntegrityError as error:
        raise tampered(Reason.HEAD_DAMAGED, 0) from error
    return None if content is None else HeadCodec.read(content, hmac_key)


def create_head(path: Path, hmac_key: bytes, log_id: str) -> None:
    """
    Create the head file of an empty log, durably.

    Raises:
        OSError: It can't be written.
        StoreUnavailableError: Its name can't be made durable.
    """
    content = HeadCodec(hmac_key, log_id).new_file()
    replace_file(path.with_name(f"{path.name}.new"), path, content)


class HeadFile:
    """
    Head mark file, open for writing and locked; its lock can't be deleted.

    Without the head file no other process opens the log. After a failure nothing is
    written to its handle any more: only `renew` helps.

    Args:
        path: Its path.

        hmac_key: Key of the log.

    Raises:
        StoreLockedError: Another process has the log open.
        WrongAuditKeyError: It was written with another HMAC key.
        AuditTamperedError: It was altered by another program.
        OSError: It can't be opened.

    Attributes:
        stored: Its content at opening.
        dirty_since: Instant of ``time.monotonic()`` of the first write that was not
            synced yet, or None.
        failed: Whether a write or sync failed since it was opened or renewed.
    """

    def __init__(self, path: Path, hmac_key: bytes) -> None:
        self._path = path
        self._descriptor = self._open()
        try:
            content = os.pread(self._descriptor, HEAD_BYTES + 1, 0)
            self.stored = HeadCodec.read(content, hmac_key)
        except BaseException:
            self.close()
            raise
        self._codec = HeadCodec(hmac_key, self.stored.log_id)
        self._counter = self.stored.counter
        self.dirty_since: float | None = None
        self.failed = False

    def write(self, mark: HeadMark) -> None:
        """
        Write a mark; everything that it names must have been synced.

        Raises:
            OSError: It can't be written; the mark before is still whole.
        """
        self._check()
        self._counter += 1
        offset, slot = self._codec.slot(self._counter, mark)
        self.failed = True
        if os.pwrite(self._descriptor, slot, offset) != len(slot):
            raise OSError("the head mark was written only in part")
        self.failed = False
        if self.dirty_since is None:
            self.dirty_since = time.monotonic()

    def sync(self) -> None:
        """
        Make the newest mark durable.

        Raises:
            OSError: It may not be.
        """
        self._check()
        self.failed = True
        os.fdatasync(self._descriptor)
        self.dirty_since, self.failed = None, False
        failpoint("audit.after_head_sync")

    def due(self) -> float:
        """Return the instant of ``time.monotonic()`` at which a sync is due, or inf."""
        since = self.dirty_since
        return math.inf if since is None else since + _SYNC_SECONDS

    def heal(self, mark: HeadMark) -> None:
        """
        Write a mark durably after a failure, to a new file if that is needed.

        Raises:
            OSError: It can't be written.
            StoreLockedError: Another process has opened the log.
            StoreUnavailableError: The name of a new file can't be made durable.
        """
        if self.failed or not self.is_in_place():
            self.renew(mark)
        else:
            self.write(mark)
            self.sync()

    def finish(self, mark: HeadMark) -> None:
        """
        Write a clean end to both slots, so that neither leads back to an unclean one.

        Raises:
            OSError: It may not be durable.
        """
        clean = replace(mark, clean=True)
        self.write(clean)
        self.write(clean)
        self.sync()

    def is_in_place(self) -> bool:
        """Return whether the file of that name is still the one that is open."""
        return is_still_at(self._descriptor, self._path)

    def renew(self, mark: HeadMark) -> None:
        """
        Replace the file by a new one with this mark, durably.

        Raises:
            OSError: It can't be written; the old one is still in its place.
            StoreLockedError: Another process has opened the log.
            StoreUnavailableError: Its name can't be made durable.
        """
        slots = dict(self._codec.slot(self._counter + n, mark) for n in (1, 2))
        sector = HEAD_BYTES // 3
        content = self._codec.header.ljust(sector, b"\0")
        content += b"".join(slots[offset] for offset in sorted(slots))
        replace_file(
            self._path.with_name(f"{self._path.name}.new"), self._path, content
        )
        descriptor = self._open()
        old, self._descriptor = self._descriptor, descriptor
        self._counter += 2
        self.dirty_since, self.failed = None, False
        close_quietly(old)

    def _open(self) -> int:
        descriptor = open_no_follow(self._path, os.O_RDWR)
        try:
            lock_descriptor(descriptor, self._path)
            if not is_still_at(descriptor, self._path):
                raise OSError("the head file was replaced concurrently")
        except BaseException:
            close_quietly(descriptor)
            raise
        return descriptor

    def _check(self) -> None:
        if self.failed:
            raise OSError("an earlier write or sync of the head mark failed")

    def close(self) -> None:
        """Close the file."""
        close_quietly(self._descriptor)
