# SPDX-License-Identifier: MIT
"""
Disk space that is kept back for the records that matter most when the disk is full.

It is a file that holds nothing but its blocks. Once removed, its space is free for code
that writes next; so it helps any medium whose files lie on the same file system.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path
from typing import Final

from hsm_core._internal.stores.filesystem.opening import (
    check_private,
    open_no_follow,
)
from hsm_core.errors import ConfigurationError, UnavailableError

FULL_ERRORS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Error numbers that say that there is no room."""

_UNSUPPORTED: Final = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
"""Of file systems and C libraries that can't allocate what is not written."""

_CHUNK: Final = 65536


class Reserve:
    """
    A private file of a given size, which is there or not.

    Only one thread may take it and give it up.

    Args:
        path: Where it lies; beside what it keeps room for.

        size: In bytes; of 0 there is nothing to keep, and it is always held.

    Attributes:
        held: Whether the room is kept now.
    """

    def __init__(self, path: Path, size: int) -> None:
        self._path = path
        self._size = size
        self._descriptor = -1
        self.held = size == 0

    def take(self) -> bool:
        """Allocate what is missing, and return whether all of it is held now."""
        if self.held:
            return True
        try:
            if self._descriptor < 0:
                self._descriptor = self._open()
            os.ftruncate(self._descriptor, self._size)
            self._allocate()
            self.held = True
        except (OSError, UnavailableError, ConfigurationError):
            # Half a reserve would take room and promise nothing.
            self._empty()
        return self.held

    def _open(self) -> int:
        descriptor = open_no_follow(self._path, os.O_RDWR | os.O_CREAT)
        try:
            check_private(self._path)
            if os.fstat(descriptor).st_nlink == 1:
                return descriptor
            # It has another name, and may be anything: one of our own is made.
            os.unlink(self._path)
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        return open_no_follow(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL)

    def _allocate(self) -> None:
        try:
            os.posix_fallocate(self._descriptor, 0, self._size)
        except OSError as error:
            if error.errno not in _UNSUPPORTED:
                raise
            for offset in range(0, self._size, _CHUNK):
                chunk = bytes(min(_CHUNK, self._size - offset))
                if os.pwrite(self._descriptor, chunk, offset) != len(chunk):
                    raise OSError(
                        errno.ENOSPC, "no disk space for the reserve"
                    ) from error

    def give_up(self) -> bool:
        """Free its room; return whether it held any, so that trying again may help."""
        if not self.held or self._size == 0:
            return False
        self.held = False
        self._empty()
        return True

    def _empty(self) -> None:
        if self._descriptor < 0:
            return
        with suppress(OSError):
            os.ftruncate(self._descriptor, 0)

    def close(self) -> None:
        """Let go of the file, which keeps its room for the next start."""
        descriptor, self._descriptor = self._descriptor, -1
        self.held = self._size == 0
        if descriptor >= 0:
            with suppress(OSError):
                os.close(descriptor)
