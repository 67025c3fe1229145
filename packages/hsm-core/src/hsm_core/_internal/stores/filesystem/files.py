# SPDX-License-Identifier: MIT
"""
File system calls of the stores: private, durable, and never through a link.

No module of the key store but this, `opening` and `key_healing` calls ``os``, so that a
test can make the n-th call fail. Helpers whose name says nothing else raise
`StoreUnavailableError`, or `StorageFullError` where there is no room; the cause is
chained and the path left out, because the message may reach a client.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Final

from hsm_core._internal.lib.concurrency import run_together
from hsm_core._internal.stores.filesystem.opening import (
    check_private,
    check_private_status,
    open_directory,
    open_no_follow,
    path_exists,
    storage_errors,
    sync_directory,
)
from hsm_core._internal.stores.records import UnsettledError
from hsm_core.errors import IntegrityError, StoreUnavailableError, UnsafeFileModeError

_MOST_CHECKED: Final = 1000
_TEMPORARY: Final = ".tmp-"
_NOT_REGULAR: Final = frozenset({errno.ELOOP, errno.EINVAL, errno.ENXIO, errno.ENOTDIR})


def check_private_files(directory: Path) -> None:
    """
    Check that the regular files in a directory are private to this user.

    In a directory of more than 1000, each is checked when it is read.

    Raises:
        UnsafeFileModeError: `check_private` refuses one.
        StoreUnavailableError: The directory can't be read.
    """
    names = list_directory(directory)[1]
    if len(names) <= _MOST_CHECKED:
        for name in sorted(names):
            check_private(directory / name)


def read_file(path: Path, limit_bytes: int, *, private: bool = True) -> bytes | None:
    """
    Return the content of a file, or None if there is none of this name.

    Args:
        path: Of the file.

        limit_bytes: Longest content.

        private: Refuse a file that other users may reach.

    Raises:
        IntegrityError: It is a link, no regular file, or longer than *limit_bytes*.
        StoreUnavailableError: It can't be read now, or is refused.
    """
    with storage_errors():
        try:
            descriptor = open_no_follow(path, os.O_RDONLY)
        except FileNotFoundError:
            return None
        except OSError as error:
            if error.errno in _NOT_REGULAR:
                raise IntegrityError(f"{path.name} is not a regular file.") from error
            raise
        try:
            if private:
                _check_descriptor(path, descriptor)
            return _read_to_end(descriptor, limit_bytes)
        finally:
            os.close(descriptor)


def _check_descriptor(path: Path, descriptor: int) -> None:
    try:
        check_private_status(path, os.fstat(descriptor))
    except UnsafeFileModeError as error:
        raise StoreUnavailableError(
            f"{path.name} is accessible to other users. Set its mode to 0600."
        ) from error


def _read_to_end(descriptor: int, limit_bytes: int) -> bytes:
    size = os.fstat(descriptor).st_size
    content = b""
    # A sparse file of any size is refused before a byte of it is read.
    while max(size, len(content)) <= limit_bytes:
        chunk = os.read(descriptor, max(size - len(content), 0) + 1)
        if not chunk:
            return content
        content += chunk
    raise IntegrityError(f"A stored file is longer than {limit_bytes} bytes.")


def atomic_write(path: Path, data: bytes, *, staging: Path | None = None) -> None:
    """
    Create or replace a file of mode 0600, atomically and durably.

    Temporary file, fsync, rename, fsync of the directory.

    Args:
        path: Where it shall lie.

        data: All of its content.

        staging: Directory of the temporary file, on the same file system; the one that
            *path* lies in by default.

    Raises:
        StorageFullError: There is no room; the file is as it was.
        UnsettledError: The rename was, or may have been, done and its sync failed.
        StoreUnavailableError: Anything else went wrong; the file is as it was.
    """
    temporary = temporary_in(staging or path.parent)
    with storage_errors():
        try:
            write_new(temporary, data)
        except BaseException:
            _discard(temporary)
            raise
        try:
            os.rename(temporary, path)
        except OSError as error:
            # A temporary file that can still be removed was not renamed.
            if _discard(temporary):
                raise
            raise UnsettledError from error
    _settle(path.parent)


def create_file(path: Path, data: bytes) -> None:
    """
    Create a file of mode 0600, durably; killed meanwhile, a part of it may be there.

    For what nobody looks for before this returned: it needs one commit of the file
    system, where `atomic_write` needs two.

    Raises:
        StorageFullError: There is no room.
        UnsettledError: It is there, and its name may not be durable.
        StoreUnavailableError: It was not created; there may be one of its name.
    """
    with ExitStack() as stack, storage_errors():
        try:
            file = _written(path, data, stack)
        except FileExistsError:
            raise
        except BaseException:
            _discard(path)
            raise
        syncs = [partial(os.fsync, file), partial(sync_directory, path.parent)]
        problem, unsettled = run_together(syncs)
        if unsettled is not None:
            raise UnsettledError from unsettled
        if problem is not None:
            _discard(path)
            raise problem


def temporary_in(directory: Path) -> Path:
    """Return a path for a temporary file or directory, which nothing has."""
    return directory / (_TEMPORARY + os.urandom(8).hex())


def _settle(directory: Path) -> None:
    try:
        sync_directory(directory)
    except StoreUnavailableError as error:
        raise UnsettledError from error


def write_new(path: Path, data: bytes) -> None:
    """
    Write a new file of mode 0600 and sync it; its name is not durable yet.

    Raises:
        OSError: It may be there in part, and must be removed, never synced again.
    """
    with ExitStack() as stack:
        os.fsync(_written(path, data, stack))


def _written(path: Path | str, data: bytes, stack: ExitStack) -> int:
    """Return a new file, written, that is closed with the stack."""
    descriptor = open_no_follow(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    stack.callback(os.close, descriptor)
    _write_to(descriptor, data)
    return descriptor


def _sync_together(descriptors: Sequence[int]) -> None:
    """
    Sync files and directories side by side: all of them cost one wait for the disk.

    Raises:
        OSError: One may not be durable, and none must be synced again.
    """
    for problem in run_together([partial(os.fsync, each) for each in descriptors]):
        if problem is not None:
            raise problem


def _write_to(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        written = os.write(descriptor, view)
        if not written:
            raise OSError(errno.EIO, "nothing was written")
        view = view[written:]


def _discard(temporary: Path) -> bool:
    try:
        os.unlink(temporary)
    except OSError:
        return False
    return True


def stage_directory(parent: Path, contents: Mapping[str, bytes]) -> Path:
    """
    Write a directory of mode 0700 under a temporary name, durable with its files.

    Returns:
        Its path, for `publish_directory` or `discard_directory`.
    """
    staged = temporary_in(parent)
    try:
        with storage_errors():
            os.mkdir(staged, 0o700)
            with ExitStack() as stack:
                opened = [
                    _written(f"{staged}/{name}", data, stack)
                    for name, data in contents.items()
                ]
                opened.append(open_directory(staged))
                stack.callback(os.close, opened[-1])
                _sync_together(opened)
    except BaseException:
        discard_directory(staged, contents)
        raise
    return staged


def publish_directory(staged: Path, path: Path) -> None:
    """
    Give a staged directory its name, wholly and durably, or discard it.

    Raises:
        UnsettledError: The rename was, or may have been, done and its sync failed.
        StoreUnavailableError: It was not renamed.
    """
    with storage_errors():
        try:
            os.rename(staged, path)
        except OSError as error:
            if discard_directory(staged):
                raise
            raise UnsettledError from error
    _settle(path.parent)


def discard_directory(staged: Path, names: Iterable[str] = ()) -> bool:
    """
    Remove a staged directory; return whether it was there and is gone.

    Args:
        staged: The directory.

        names: Its files. To list them takes a descriptor, which there may not be.
    """
    try:
        for name in names or list_directory(staged)[1]:
            with suppress(FileNotFoundError):
                os.unlink(staged / name)
        os.rmdir(staged)
    except (OSError, StoreUnavailableError):
        return False
    return True


def remove_file(path: Path) -> bool:
    """
    Remove a name; not durable until the directory is synced.

    Returns:
        Whether it was there.

    Raises:
        UnsettledError: Removing it failed, and yet it is gone.
        StoreUnavailableError: It is still there, or nobody can tell.
    """
    with storage_errors():
        try:
            os.unlink(path)
        except FileNotFoundError:
            return False
        except OSError as error:
            if path_exists(path):
                raise
            raise UnsettledError from error
        return True


def overwrite_file(path: Path, limit_bytes: int) -> bool:
    """
    Overwrite a file once in place with random bytes, and sync it.

    It is the most that can be done from here: a medium, file system or snapshot that
    writes elsewhere keeps the old content for a time, or for good. A file with another
    name too is left alone, because that may be anybody's.

    Returns:
        Whether it was done; what can't be overwritten is to be removed all the same.

    Raises:
        StoreUnavailableError: The process has no file descriptors left for it now.
    """
    try:
        descriptor = open_no_follow(path, os.O_WRONLY)
    except OSError as error:
        if error.errno in {errno.EMFILE, errno.ENFILE}:
            raise StoreUnavailableError from error
        return False
    try:
        found = os.fstat(descriptor)
        is_plain = stat.S_ISREG(found.st_mode) and found.st_nlink == 1
        if not is_plain or found.st_size > limit_bytes:
            return False
        _write_to(descriptor, os.urandom(found.st_size))
        os.fsync(descriptor)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


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
        The names of the directories that are left in it.

    Raises:
        StoreUnavailableError: A leftover can't be removed.
    """
    directories, regular = list_directory(path)
    for name in regular:
        if name.startswith(_TEMPORARY):
            remove_file(path / name)
    left = []
    for name in directories:
        if not name.startswith(_TEMPORARY):
            left.append(name)
        elif not discard_directory(path / name):
            raise StoreUnavailableError("A leftover file of a crash can't be removed.")
    return left
