# SPDX-License-Identifier: MIT
"""The head mark's file: two slots, written in turn after each sync of the trail."""

from __future__ import annotations

import os
import time
from pathlib import Path

from hsm_core._internal.audit.mark import (
    HEAD_BYTES,
    HeadCodec,
    HeadMark,
    StoredHead,
)
from hsm_core._internal.audit.reasons import Reason, tampered
from hsm_core._internal.failpoints import failpoint
from hsm_core._internal.stores.filesystem.audit_files import check_file, replace_file
from hsm_core._internal.stores.filesystem.files import open_no_follow, read_file
from hsm_core.errors import IntegrityError

__all__ = ["HeadFile", "create_head", "read_head"]


def read_head(path: Path, hmac_key: bytes) -> StoredHead | None:
    """
    Return what a head file says, or None if there is none.

    Raises:
        WrongAuditKeyError: It was written with another HMAC key.
        AuditTamperedError: It was changed by other means than ours.
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


def create_head(path: Path, hmac_key: bytes, log_id: str) -> StoredHead:
    """
    Create the head file of an empty trail, durably.

    Raises:
        OSError: It can't be written.
        StoreUnavailableError: Its name can't be made durable.
    """
    content = HeadCodec(hmac_key, log_id).new_file()
    replace_file(path.with_name(f"{path.name}.new"), path, content)
    return HeadCodec.read(content, hmac_key)


class HeadFile:
    """
    The head file, open for writing.

    Args:
        path: Its path.

        hmac_key: Key of the trail.

        stored: What it says now.

    Attributes:
        dirty_since: Instant of ``time.monotonic()`` of the first write that was not
            synced yet, or None.
    """

    def __init__(self, path: Path, hmac_key: bytes, stored: StoredHead) -> None:
        self._codec = HeadCodec(hmac_key, stored.log_id)
        self._counter = stored.counter
        self._descriptor = open_no_follow(path, os.O_WRONLY)
        self.dirty_since: float | None = None

    def write(self, mark: HeadMark) -> None:
        """
        Write a mark; everything that it names must have been synced.

        Raises:
            OSError: It can't be written; the mark before is still whole.
        """
        self._counter += 1
        offset, slot = self._codec.slot(self._counter, mark)
        if os.pwrite(self._descriptor, slot, offset) != len(slot):
            raise OSError("the head mark was not written wholly")
        if self.dirty_since is None:
            self.dirty_since = time.monotonic()

    def sync(self) -> None:
        """
        Make the newest mark durable.

        Raises:
            OSError: It may not be.
        """
        os.fdatasync(self._descriptor)
        self.dirty_since = None
        failpoint("audit.after_head_sync")

    def close(self) -> None:
        """Close the file."""
        os.close(self._descriptor)
