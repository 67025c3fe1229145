# SPDX-License-Identifier: MIT
"""
Files of an audit log: names, private files, complete writes, reserved disk space.

``audit.log`` is the live segment; ``audit.log.00000001.0000000000000000`` a closed one
with its number (from 1) and the seq of its first record; beside them lie
``audit.log.head``, ``audit.log.lock``, ``audit.log.reserve``, ``audit.log.baseline``
with what is kept of pruned records, and fragments set aside by repairs.

A failed sync is never repeated: the kernel may have dropped the data, and a second
call would report success.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Final, NamedTuple, TypeVar

from hsm_core._internal.audit.medium import Cause, MediumError
from hsm_core._internal.stores.filesystem.opening import (
    check_private,
    open_no_follow,
    path_exists,
    sync_directory,
)
from hsm_core.errors import (
    AuditUnavailableError,
    ConfigurationError,
    StoreUnavailableError,
    UnavailableError,
    UnsafeFileModeError,
)

HEAD: Final = ".head"
BASELINE: Final = ".baseline"
LOCK: Final = ".lock"
NEW: Final = ".new"
RESERVE: Final = ".reserve"
"""Suffixes of the files beside a live segment; `LOCK` and `HEAD` of databases, too."""

FULL_ERRORS: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Error numbers that say that there is no room."""

_UNSUPPORTED: Final = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})
"""Of file systems and C libraries that can't allocate what is not written."""

_CHUNK: Final = 65536

_CLOSED: Final = re.compile(r"\.([0-9]{8})\.([0-9]{16})")
_NUMBER: Final = r"(0|[1-9][0-9]{0,15})"
_FRAGMENT: Final = re.compile(rf"\.(torn|fork)-{_NUMBER}-{_NUMBER}")

_Result = TypeVar("_Result")


class DiskReserve:
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

    def run(self, action: Callable[[], _Result]) -> _Result:
        """
        Run an action of an opening log, which may be repeated.

        On a full disk it is run again with the space that an earlier process kept back.
        """
        try:
            return action()
        except (OSError, StoreUnavailableError, MediumError) as error:
            if not (is_full(error) and self.take() and self.give_up()):
                raise
        return action()

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


@contextmanager
def audit_errors(opened: Path | None = None) -> Iterator[None]:
    """Turn errors of the file system into the log's own, which names only *opened*."""
    try:
        yield
    except (OSError, StoreUnavailableError) as error:
        message = f"The audit log {opened} can't be opened." if opened else ""
        raise AuditUnavailableError(message) from error


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
    """Return whether an error means that there is no room on the disk."""
    if isinstance(error, MediumError):
        return error.cause is Cause.FULL
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


class ClosedName(NamedTuple):
    """Parsed name of a closed segment; sorts in log order."""

    number: int
    first_seq: int

    def of(self, live: str) -> str:
        """Return the name, given that of the live segment."""
        return f"{live}.{self.number:08d}.{self.first_seq:016d}"


class FragmentName(NamedTuple):
    """
    Parsed name of a fragment.

    Attributes:
        seq: Number of the record that tells of its repair.
        microseconds: When it was set aside, since 1970.
        kind: ``torn`` for a tail that a crash tore, ``fork`` for the records of another
            branch.
    """

    seq: int
    microseconds: int
    kind: str = "torn"

    def of(self, live: str) -> str:
        """Return the name, given that of the live segment."""
        return f"{live}.{self.kind}-{self.seq}-{self.microseconds}"


def closed_names(live: str, names: list[str]) -> list[ClosedName]:
    """Return the closed segments among *names*, in order."""
    matches = (
        _CLOSED.fullmatch(name, len(live)) for name in names if name.startswith(live)
    )
    return sorted(ClosedName(int(m[1]), int(m[2])) for m in matches if m)


def fragment_names(live: str, names: list[str]) -> list[FragmentName]:
    """Return the fragments among *names*, in order."""
    matches = (
        _FRAGMENT.fullmatch(name, len(live)) for name in names if name.startswith(live)
    )
    return sorted(FragmentName(int(m[2]), int(m[3]), m[1]) for m in matches if m)
