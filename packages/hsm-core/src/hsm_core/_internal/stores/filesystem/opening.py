# SPDX-License-Identifier: MIT
"""
Opening and locking of files: permission checks, and durable names.

Part of `files`, which says what the two modules promise.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shlex
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

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_NO_DIRECTORY_LOCKS: Final = frozenset({errno.EBADF, errno.EOPNOTSUPP})


@contextmanager
def storage_errors() -> Iterator[None]:
    """Turn every `OSError` of a block into the store's own error."""
    try:
        yield
    except OSError as error:
        full = error.errno in _FULL
        raise (StorageFullError if full else StoreUnavailableError) from error


def open_no_follow(path: Path | str, flags: int, mode: int = 0o600) -> int:
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
        descriptor = open_directory(path)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def open_directory(path: Path) -> int:
    """
    Open a directory and return its descriptor, never following a link at its end.

    Raises:
        OSError: As open(2).
    """
    return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)


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
    try:
        sync_directory(path.parent)
    except StoreUnavailableError:
        # The next call would take one that is there for durable.
        with suppress(OSError):
            os.rmdir(path)
        raise


def tighten_directory(path: Path) -> None:
    """
    Set mode 0700 on an empty directory of ours, such as one that ``mkdir`` made.

    One that holds something, or belongs to another user, stays as it is; whether it can
    be used is for `check_private` to say.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    with suppress(OSError):
        descriptor = os.open(path, flags)
        try:
            found = os.fstat(descriptor)
            mode = stat.S_IMODE(found.st_mode)
            is_ours = found.st_uid == os.geteuid()
            if not (is_ours and mode & 0o077) or os.listdir(descriptor):
                return
            os.fchmod(descriptor, 0o700)
            if os.listdir(descriptor):
                # Somebody was faster. It is not ours alone, and stays to be refused.
                os.fchmod(descriptor, mode)
        finally:
            os.close(descriptor)


def check_private(path: Path) -> None:
    """
    Check that a file or directory is private to this user.

    Raises:
        UnsafeFileModeError: Group or others may do anything with it, its owner is
            neither we nor root, or it is a symbolic link.
        StoreUnavailableError: It can't be examined, or is not there.
    """
    with storage_errors():
        found = os.lstat(path)
    check_private_status(path, found)


def check_private_status(path: Path, found: os.stat_result) -> None:
    """Check the same on a result of lstat(2) or fstat(2)."""
    mode = stat.S_IMODE(found.st_mode)
    remedy = ""
    if stat.S_ISLNK(found.st_mode):
        problem = "is a symbolic link"
    elif found.st_uid not in {0, os.geteuid()}:
        problem = f"belongs to user {found.st_uid}"
    elif mode & 0o077:
        problem = f"has mode {mode:04o}, which gives other users access"
        wanted = "700" if stat.S_ISDIR(found.st_mode) else "600"
        remedy = f" Run: chmod {wanted} {shlex.quote(str(path))}"
    else:
        return
    raise UnsafeFileModeError(f"{path} {problem}.{remedy}", path=str(path))


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
    check_private_status(path, found)
    return True


def sibling(path: Path, suffix: str) -> Path:
    """Return the path of a file beside another, named after it."""
    return path.with_name(path.name + suffix)


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
    Lock file, held by this process until `release` or exit.

    If the file is deleted, another process can create and lock a new one. So the
    directory can be locked too, and `check` must precede every write. A child made by
    fork keeps the lock alive but can't release it.

    Attributes:
        is_lost: A check found another file, or none, under the name; `renew` helps.
    """

    def __init__(self, path: Path, directory: int | None) -> None:
        self._path = path
        self._name = os.fspath(path)
        self._directory = directory
        self._descriptor, self._found = _locked(path)
        self.is_lost = False

    def is_in_place(self) -> bool:
        """
        Return whether the lock file is still linked under its name; one lstat(2).

        Raises:
            OSError: It can't be examined.
        """
        try:
            named = os.lstat(self._name)
        except FileNotFoundError:
            return False
        found = self._found
        return named.st_ino == found.st_ino and named.st_dev == found.st_dev

    def check(self) -> None:
        """
        Check that no other process can take the lock; to be called before each write.

        Raises:
            StoreUnavailableError: The lock file was moved, deleted or replaced.
        """
        with storage_errors():
            self.is_lost = self.is_lost or not self.is_in_place()
        if self.is_lost:
            raise StoreUnavailableError("The lock file of the store was moved.")

    def renew(self) -> None:
        """
        Create and lock the file again if it was moved, deleted or replaced.

        Raises:
            StoreLockedError: Another process has locked the new one.
            StoreUnavailableError: It can't be created, or the directory was moved.
            UnsafeFileModeError: Other users can open it.
        """
        with storage_errors():
            if self._directory is not None:
                held = os.fstat(self._directory)
                if not os.path.samestat(os.lstat(self._path.parent), held):
                    raise StoreUnavailableError("The directory of the store was moved.")
            if not self.is_in_place():
                old = self._descriptor
                self._descriptor, self._found = _locked(self._path)
                os.close(old)
        self.is_lost = False

    def release(self) -> None:
        """Release the lock; the file stays. A second call does nothing."""
        held = (self._descriptor, self._directory)
        self._descriptor, self._directory = -1, None
        for descriptor in held:
            if descriptor is not None and descriptor >= 0:
                with suppress(OSError):
                    os.close(descriptor)


def lock_file(path: Path) -> LockFile:
    """
    Lock a file, which is created with mode 0600 if absent.

    Raises:
        StoreLockedError: Another process, or another part of this one, holds it.
        StoreUnavailableError: The file can't be opened, or is not a regular one.
        UnsafeFileModeError: Other users can open it.
    """
    return LockFile(path, None)


def lock_directory(directory: Path) -> LockFile:
    """
    Lock a directory, and the file ``lock`` in it; errors as of `lock_file`.

    A directory can't be deleted while there is something in it, so its own lock holds
    where the file is deleted. Network file systems may have no locks on directories;
    there the file alone counts.
    """
    path = directory / "lock"
    with storage_errors():
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        held = os.open(directory, flags)
        try:
            try:
                lock_descriptor(held, path)
            except OSError as error:
                if error.errno not in _NO_DIRECTORY_LOCKS:
                    raise
            return LockFile(path, held)
        except BaseException:
            os.close(held)
            raise


def lock_descriptor(descriptor: int, path: Path) -> None:
    """
    Lock an open file or directory; *path* stands in the error.

    Raises:
        StoreLockedError: It is locked through another descriptor.
        OSError: It can't be locked.
    """
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise _locked_error(path) from None


def check_unlocked(path: Path) -> None:
    """
    Check that no process holds a lock file, which need not exist.

    Raises:
        StoreLockedError: One does.
    """
    # What can't be opened or locked is for those to say that have to.
    with suppress(FileNotFoundError, PermissionError, NotADirectoryError):
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _locked_error(path) from None
        except OSError:
            return
        finally:
            os.close(descriptor)


def _locked_error(path: Path) -> StoreLockedError:
    """Return the error that tells which lock is held already."""
    return StoreLockedError(
        f"{path} is locked: another process, or this one, has the store open.",
        path=str(path),
    )


def _locked(path: Path) -> tuple[int, os.stat_result]:
    with storage_errors():
        descriptor = open_no_follow(path, os.O_RDWR | os.O_CREAT)
        try:
            lock_descriptor(descriptor, path)
            found = os.fstat(descriptor)
            check_private_status(path, found)
            # Between opening and locking, who held it may have deleted it.
            if not os.path.samestat(os.lstat(path), found):
                raise _locked_error(path)
        except BaseException:
            os.close(descriptor)
            raise
    return descriptor, found
