# SPDX-License-Identifier: MIT
"""
File system calls of the audit log: private files, complete writes, audit errors.

A failed sync is never repeated: the kernel may have dropped the data, and a second
call would report success.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

from hsm_core._internal.stores.filesystem.opening import (
    check_private,
    open_no_follow,
    path_exists,
    sync_directory,
)
from hsm_core._internal.stores.trail.medium import Cause, MediumError
from hsm_core._internal.stores.trail.reserve import FULL_ERRORS
from hsm_core.errors import (
    AuditUnavailableError,
    ConfigurationError,
    StoreUnavailableError,
    UnsafeFileModeError,
)


@contextmanager
def audit_errors() -> Iterator[None]:
    """Turn errors of the file system into the trail's own, which tells no path."""
    try:
        yield
    except (OSError, StoreUnavailableError) as error:
        raise AuditUnavailableError from error


class _MediumErrors:
    # A class, because a generator costs four times as much on each write and sync.
    __slots__ = ("_cause",)

    def __init__(self, cause: Cause) -> None:
        self._cause = cause

    def __enter__(self) -> None:
        return None

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if isinstance(error, OSError | StoreUnavailableError | ConfigurationError):
            raise MediumError(Cause.FULL if is_full(error) else self._cause) from error


def medium_errors(cause: Cause) -> AbstractContextManager[None, None]:
    """Turn errors of the file system into the medium's, and name a full disk."""
    return _MediumErrors(cause)


def is_full(error: Exception) -> bool:
    """Return whether an error of the file system means that there is no room."""
    system = error if isinstance(error, OSError) else error.__cause__
    return isinstance(system, OSError) and system.errno in FULL_ERRORS


def check_file(path: Path) -> bool:
    """
    Return whether a file is there, after checking that it is regular and ours alone.

    Raises:
        UnsafeFileModeError: It is neither, or a symbolic link.
        StoreUnavailableError: It can't be examined.
    """
    if not path_exists(path):
        return False
    if not (path.is_symlink() or path.is_file()):
        raise UnsafeFileModeError(f"{path} is not a regular file.", path=str(path))
    check_private(path)
    return True


def create_file(path: Path) -> int:
    """
    Create an empty file of mode 0600, durably, and return it open for appending.

    Raises:
        OSError: It can't be made, or is there already.
        StoreUnavailableError: Its name can't be made durable.
    """
    descriptor = open_no_follow(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL)
    try:
        os.fsync(descriptor)
        sync_directory(path.parent)
    except BaseException:
        close_quietly(descriptor)
        with suppress(OSError):
            os.unlink(path)
        raise
    return descriptor


def close_quietly(descriptor: int) -> None:
    """Close a file of which nothing is expected any more."""
    with suppress(OSError):
        os.close(descriptor)


def open_reader(path: Path) -> BinaryIO:
    """
    Open a regular file for reading.

    Raises:
        OSError: It can't be opened, or is a link or no regular file.
    """
    return os.fdopen(open_no_follow(path, os.O_RDONLY), "rb")


def replace_file(temporary: Path, path: Path, data: bytes) -> None:
    """
    Create or replace a file of mode 0600, wholly and durably.

    What a kill left at *temporary* is removed by the next call.

    Raises:
        OSError: It can't be written.
        StoreUnavailableError: Its name can't be made durable.
    """
    with suppress(FileNotFoundError):
        os.unlink(temporary)
    descriptor = open_no_follow(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        try:
            write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.rename(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
    sync_directory(path.parent)


def write_all(
    descriptor: int,
    data: bytes,
    write: Callable[[int, memoryview], int] | None = None,
) -> None:
    """
    Write all of *data* with write(2), or *write*, however many calls that takes.

    Raises:
        OSError: A call failed; some of *data* may have been written.
    """
    call = write or os.write
    view = memoryview(data)
    while view:
        written = call(descriptor, view)
        if written <= 0:
            raise OSError("nothing was written")
        view = view[written:]


def is_still_at(descriptor: int, path: Path) -> bool:
    """Return whether *path* still names the file that is open."""
    try:
        named = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return False
    opened = os.fstat(descriptor)
    return stat.S_ISREG(named.st_mode) and os.path.samestat(named, opened)


def is_vacant(path: Path) -> bool:
    """Return whether there is nothing at *path*, or an empty regular file."""
    try:
        named = os.stat(path, follow_symlinks=False)
    except FileNotFoundError:
        return True
    return stat.S_ISREG(named.st_mode) and named.st_size == 0
