# SPDX-License-Identifier: MIT
"""
Every file system call of the stores: private, durable, and never through a link.

No other module of the stores calls ``os``, so that a test can make the n-th call fail.
Helpers whose name says nothing else raise `StoreUnavailableError`, or
`StorageFullError` where there is no room; the cause is chained and no path is told,
because the sentence may travel to a client.
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
    IntegrityError,
    StorageFullError,
    StoreLockedError,
    StoreUnavailableError,
    UnsafeFileModeError,
)

__all__ = [
    "LockFile",
    "UnsettledWriteError",
    "atomic_write",
    "check_private",
    "list_directory",
    "lock_file",
    "make_private_directory",
    "open_no_follow",
    "path_exists",
    "read_file",
    "remove_file",
    "remove_temporaries",
    "storage_errors",
    "sync_directory",
]

_TEMPORARY: Final = ".tmp-"
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_CHUNK_BYTES: Final = 1 << 20


class UnsettledWriteError(StoreUnavailableError):
    """
    A file was, or may have been, replaced, but it is not known to be durable.

    Its old content or its new one is found after the next start. Whoever holds the
    directory open must not trust a later sync of it.
    """


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


def read_file(path: Path, limit_bytes: int) -> bytes | None:
    """
    Return the content of a file, or None if there is none of this name.

    Raises:
        IntegrityError: It is a link, no regular file, or longer than *limit_bytes*.
        StoreUnavailableError: It can't be read now.
    """
    with storage_errors():
        try:
            descriptor = open_no_follow(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in {errno.ELOOP, errno.EINVAL, errno.ENXIO, errno.ENOTDIR}:
                raise IntegrityError("A stored file is not a regular file.") from error
            raise
        try:
            size = os.fstat(descriptor).st_size
            if size > limit_bytes:
                raise IntegrityError(
                    f"A stored file is {size} bytes long; {limit_bytes} are allowed."
                )
            return _read_to_end(descriptor, limit_bytes)
        finally:
            os.close(descriptor)


def _read_to_end(descriptor: int, limit_bytes: int) -> bytes:
    content = bytearray()
    while chunk := os.read(descriptor, _CHUNK_BYTES):
        content += chunk
        if len(content) > limit_bytes:
            raise IntegrityError(f"A stored file is longer than {limit_bytes} bytes.")
    return bytes(content)


def atomic_write(path: Path, data: bytes) -> None:
    """
    Create or replace a file of mode 0600, wholly and durably, or not at all.

    Temporary file in the same directory, fsync, rename, fsync of the directory.

    Raises:
        StorageFullError: There is no room; the file is as it was.
        UnsettledWriteError: The rename was, or may have been, done and its sync failed.
        StoreUnavailableError: Anything else went wrong; the file is as it was.
    """
    temporary = path.with_name(_TEMPORARY + os.urandom(8).hex())
    with storage_errors():
        try:
            _write_new(temporary, data)
        except BaseException:
            _discard(temporary)
            raise
        try:
            os.rename(temporary, path)
        except OSError as error:
            # A temporary file that can still be removed was not renamed.
            if _discard(temporary):
                raise
            raise UnsettledWriteError from error
    try:
        sync_directory(path.parent)
    except StoreUnavailableError as error:
        raise UnsettledWriteError from error


def _write_new(path: Path, data: bytes) -> None:
    descriptor = open_no_follow(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    try:
        view = memoryview(data)
        while view:
            written = os.write(descriptor, view)
            if not written:
                raise OSError(errno.EIO, "nothing was written")
            view = view[written:]
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _discard(temporary: Path) -> bool:
    try:
        os.unlink(temporary)
    except OSError:
        return False
    return True


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
        _make_parent(path.parent)
        make_private_directory(path)
        return
    sync_directory(path.parent)


def _make_parent(path: Path) -> None:
    # A parent that is there already belongs to somebody else, and is not judged.
    with storage_errors():
        exists = path_exists(path)
    if not exists:
        make_private_directory(path)


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


def path_exists(path: Path) -> bool:
    """Return whether there is anything of this name, a dangling link included."""
    with storage_errors():
        try:
            os.lstat(path)
        except FileNotFoundError:
            return False
        return True


def remove_file(path: Path) -> None:
    """Remove a name if it is there; not durable until the directory is synced."""
    with storage_errors(), suppress(FileNotFoundError):
        os.unlink(path)


def list_directory(path: Path) -> tuple[list[str], list[str]]:
    """Return the names of the directories and of the regular files in a directory."""
    directories, regular = [], []
    with storage_errors(), os.scandir(path) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                directories.append(entry.name)
            elif entry.is_file(follow_symlinks=False):
                regular.append(entry.name)
    return directories, regular


def remove_temporaries(path: Path) -> list[str]:
    """
    Remove what interrupted writes left in a directory.

    Returns:
        The names of the other regular files.
    """
    kept = []
    for name in list_directory(path)[1]:
        if name.startswith(_TEMPORARY):
            remove_file(path / name)
        else:
            kept.append(name)
    return kept


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
