# SPDX-License-Identifier: MIT
"""
Renewal of files after a failed sync, and appends to the index journal.

Part of `files`, which says what its modules promise. After a sync has failed, a later
one that succeeds says nothing of what was written before it: the system may have given
that up. So the content found is rewritten, and the sync then covers this new write.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final

from hsm_core._internal.stores.filesystem.files import (
    UnsettledWriteError,
    discard_directory,
    read_file,
    temporary_in,
    write_new,
)
from hsm_core._internal.stores.filesystem.opening import (
    open_no_follow,
    storage_errors,
    sync_directory,
)
from hsm_core.errors import IntegrityError, StoreUnavailableError

_MOST_FILES: Final = 4096


def renew_directory(path: Path) -> None:
    """
    Make the names in a directory durable, by changing it and syncing the change.

    Raises:
        StoreUnavailableError: It can't be done now; to be tried again.
    """
    temporary = temporary_in(path)
    with storage_errors():
        write_new(temporary, b"")
        os.unlink(temporary)
    sync_directory(path)


def read_directory(path: Path, limit_bytes: int) -> dict[str, bytes] | None:
    """
    Return the files of a directory; None if it holds anything that no store puts there.

    Raises:
        StoreUnavailableError: It can't be read now.
    """
    contents: dict[str, bytes] = {}
    with storage_errors():
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            return None
    with storage_errors(), os.scandir(path) as entries:
        for entry in entries:
            try:
                content = read_file(path / entry.name, limit_bytes, private=False)
            except IntegrityError:
                return None
            if content is None or len(contents) == _MOST_FILES:
                return None
            contents[entry.name] = content
    return contents


def swap_directory(staged: Path, path: Path) -> None:
    """
    Put a staged directory in the place of another, which is then removed.

    Killed in between, neither of them has the name, and a start removes both.

    Raises:
        UnsettledWriteError: The directory above could not be synced.
        StoreUnavailableError: It could not be put there.
    """
    old = temporary_in(path.parent)
    try:
        with storage_errors():
            os.rename(path, old)
            os.rename(staged, path)
    except StoreUnavailableError:
        discard_directory(staged)
        raise
    try:
        sync_directory(path.parent)
    except StoreUnavailableError as error:
        raise UnsettledWriteError from error
    discard_directory(old)


def move_file(path: Path, to: Path) -> None:
    """
    Give a file another name, not durably.

    Raises:
        StoreUnavailableError: It may have been done or not.
    """
    with storage_errors():
        os.rename(path, to)


class AppendFile:
    """
    A file that grows by whole writes, each of which is there or not.

    Args:
        path: Made with mode 0600 if absent.

    Raises:
        StoreUnavailableError: It can't be opened.
    """

    def __init__(self, path: Path) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        with storage_errors():
            self._descriptor = open_no_follow(path, flags)

    def append(self, data: bytes) -> None:
        """
        Write at the end; it is in the system's memory then, not on the disk.

        Raises:
            StoreUnavailableError: Nothing, or only a part, was written.
        """
        with storage_errors():
            if os.write(self._descriptor, data) != len(data):
                raise OSError(errno.EIO, "the file was written only in part")

    def sync(self) -> None:
        """
        Make durable what was appended.

        Raises:
            StoreUnavailableError: It may not be.
        """
        with storage_errors():
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Close it; nothing is made durable by that. Doing it twice does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with storage_errors():
                os.close(descriptor)
