# SPDX-License-Identifier: MIT
"""
Opening, locking and guarding: who may touch a file, and how a name becomes durable.

Part of `files`, which says what the two modules promise.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from hsm_core.errors import (
    StorageFullError,
    StoreLockedError,
    StoreUnavailableError,
    UnsafeFileModeError,
)

__all__ = [
    "LockFile",
    "check_private",
    "find_directory",
    "lock_file",
    "make_private_directory",
    "open_no_follow",
    "path_exists",
    "storage_errors",
    "sync_directory",
]

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


@contextmanager
def storage_errors() -> Iterator[None]:
    """Turn every `OSError` of a block into the store's own error."""
    try:
        yield
    except OSError as error:
        full = error.errno in _FULL
        raise (StorageFullError if full else StoreUnavailableError) from error


def open_no_follow(path: Path, flags: int, mode: int = 0o600) -> int:
    """
    Open a regular file and return its descriptor, never following a link at its end.

    A FIFO or device does not block: it is refused.

    Raises:
        OSError: As open(2); ELOOP for a link, EINVAL for anything not regular.
    """
    safe = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
    descriptor = os.open(path, flags | safe, mode)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "not a regular file")
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def sync_directory(path: Path) -> None:
    """
    Make the names in a directory durable.

    Raises:
        StoreUnavailableError: They may not be; a later success would prove nothing.
    """
    with storage_errors():
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def make_private_directory(path: Path) -> None:
    """
    Create a directory of mode 0700, with parents, durably; or check the one there is.

    Raises:
        UnsafeFileModeError: It is there, and `check_private` refuses it.
        StoreUnavailableError: It can't be made.
    """
    try:
        with storage_errors():
            os.mkdir(path, 0o700)
    except StoreUnavailableError as error:
        cause = error.__cause__
        if isinstance(cause, FileExistsError):
            check_private(path)
            return
        if not isinstance(cause, FileNotFoundError) or path.parent == path:
            raise
        # A parent that is there already belongs to somebody else, and is not judged;
        # then nothing can be made in it.
        if path_exists(path.parent):
            raise
        make_private_directory(path.parent)
        make_private_directory(path)
        return
    sync_directory(path.parent)


def check_private(path: Path) -> None:
    """
    Check that a file or directory is ours alone.

    Raises:
        UnsafeFileModeError: Group or others may do anything with it, its owner is
            neither we nor root, or it is a symbolic link.
        StoreUnavailableError: It can't be examined, or is not there.
    """
    with storage_errors():
        found = os.lstat(path)
    _check_private(path, found)


def _check_private(path: Path, found: os.stat_result) -> None:
    mode = stat.S_IMODE(found.st_mode)
    if stat.S_ISLNK(found.st_mode):
        problem = "is a symbolic link"
    elif found.st_uid not in {0, os.geteuid()}:
        problem = f"belongs to user {found.st_uid}"
    elif mode & 0o077:
        problem = f"has mode {mode:04o}, so that other users may reach it"
    else:
        return
    raise UnsafeFileModeError(f"{path} {problem}.", path=str(path))


def find_directory(path: Path) -> bool | None:
    """
    Return whether a directory has this name; None if nothing has.

    Raises:
        UnsafeFileModeError: It is a directory, and `check_private` refuses it.
        StoreUnavailableError: It can't be examined.
    """
    with storage_errors():
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            return None
    if not stat.S_ISDIR(found.st_mode):
        return False
    _check_private(path, found)
    return True


def path_exists(path: Path) -> bool:
    """Return whether there is anything of this name, a dangling link included."""
    with storage_errors():
        try:
            os.lstat(path)
        except FileNotFoundError:
            return False
        return True


class LockFile:
    """
    A lock that this process holds until `release` or its end, however it ends.

    A child made by fork keeps the lock alive but can't release it.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock up; the file stays. Doing it twice does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with suppress(OSError):
                os.close(descriptor)


def lock_file(path: Path) -> LockFile:
    """
    Take the lock that a file stands for; the file is made with mode 0600 if absent.

    Raises:
        StoreLockedError: Another process, or another part of this one, holds it.
        StoreUnavailableError: The file can't be opened, or is not a regular one.
    """
    with storage_errors():
        descriptor = open_no_follow(path, os.O_RDWR | os.O_CREAT)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise StoreLockedError(
                f"{path} is locked: another process uses this store.", path=str(path)
            ) from None
        except BaseException:
            os.close(descriptor)
            raise
    return LockFile(descriptor)
