# SPDX-License-Identifier: MIT
"""The lock of a trail's one writer, which outlives its file."""

from __future__ import annotations

import os
from pathlib import Path

from hsm_core._internal.stores.filesystem.audit_files import check_file
from hsm_core._internal.stores.filesystem.files import LockFile, lock_file

__all__ = ["TrailLock"]


class TrailLock:
    """
    A lock, held until `release`.

    Args:
        path: Its file.

    Raises:
        StoreLockedError: Another process, or another part of this one, holds it.
        StoreUnavailableError: The file can't be opened.
        UnsafeFileModeError: Others could reach it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock, self._found = _locked(path)

    def is_in_place(self) -> bool:
        """
        Return whether the lock's file is still there, so that others see the lock.

        Raises:
            OSError: It can't be examined.
        """
        try:
            named = os.stat(self._path, follow_symlinks=False)
        except FileNotFoundError:
            return False
        return os.path.samestat(named, self._found)

    def renew(self) -> None:
        """
        Take it anew where its file was moved or removed, so that it still counts.

        Raises:
            StoreLockedError: Somebody else was faster.
            StoreUnavailableError: The file can't be opened.
            UnsafeFileModeError: Others could reach it.
        """
        if self.is_in_place():
            return
        old = self._lock
        self._lock, self._found = _locked(self._path)
        old.release()

    def release(self) -> None:
        """Give the lock up; the file stays. Doing it twice does nothing."""
        self._lock.release()


def _locked(path: Path) -> tuple[LockFile, os.stat_result]:
    check_file(path)
    lock = lock_file(path)
    try:
        return lock, os.stat(path, follow_symlinks=False)
    except BaseException:
        lock.release()
        raise
