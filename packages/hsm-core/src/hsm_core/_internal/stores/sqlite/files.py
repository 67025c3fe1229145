# SPDX-License-Identifier: MIT
"""
Files of a database: checks, temporary files, backup.

Closing any descriptor of a database file gives up every POSIX lock that this process
holds on it, those of SQLite included. So nothing here opens a file of a database but
before the connection is made or after it was closed.
"""

from __future__ import annotations

import glob
import os
import sqlite3
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeAlias

from hsm_core._internal.stores.filesystem.opening import (
    check_private,
    make_private_directory,
    open_no_follow,
    path_exists,
    sibling,
    storage_errors,
    sync_directory,
)
from hsm_core.errors import ConfigurationError, IntegrityError, UnsafeFileModeError

_MAGIC: Final = b"SQLite format 3\x00"
_APPLICATION_ID: Final = slice(68, 72)
_HEADER_BYTES: Final = 100
_COPY_BYTES: Final = 1024 * 1024
_LOG: Final = "-wal"
_SIDES: Final = (_LOG, "-shm", "-journal")
_TEMPORARY: Final = ".tmp-"


def identity_of(path: Path) -> tuple[int, int] | None:
    """Return which file has this name, without opening it; None if there is none."""
    with storage_errors():
        try:
            found = os.lstat(path)
        except FileNotFoundError:
            return None
    return found.st_dev, found.st_ino


def size_of(path: Path) -> int:
    """Return the size of a file, without opening it; 0 if there is none."""
    with storage_errors():
        try:
            return os.lstat(path).st_size
        except FileNotFoundError:
            return 0


def prepare_file(path: Path, application_id: int) -> None:
    """
    Check the files of a database, and make an empty one of mode 0600 if it is absent.

    Raises:
        UnsafeFileModeError: Others may reach one of them, or it is no regular file.
        IntegrityError: It is no database, or only its log is there.
        ConfigurationError: It is a database of another kind.
        StoreUnavailableError: It can't be read or made.
    """
    _remove_leftovers(path)
    if size_of(path):
        check_files(path, application_id)
        return
    _check_modes(path)
    # The first page is durable before there is a log, so a log without one means that
    # the database was cut off. SQLite would delete that log and start over.
    if size_of(sibling(path, _LOG)):
        raise IntegrityError(
            f"{path} is empty, but its write-ahead log is not. Restore the database "
            "from a backup."
        )
    with storage_errors():
        descriptor = open_no_follow(path, os.O_RDWR | os.O_CREAT)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    sync_directory(path.parent)


def _remove_leftovers(path: Path) -> None:
    # What a kill left while the log was written afresh.
    with storage_errors():
        for found in path.parent.glob(glob.escape(path.name + _LOG + _TEMPORARY) + "*"):
            found.unlink(missing_ok=True)


def check_files(path: Path, application_id: int) -> None:
    """
    Check the files of a database that has been made.

    Raises:
        UnsafeFileModeError: Others may reach one of them, or it is no regular file.
        IntegrityError: It is no database.
        ConfigurationError: It is a database of another kind.
        StoreUnavailableError: It can't be read.
    """
    _check_modes(path)
    header = _read_header(path)
    if not header.startswith(_MAGIC) or len(header) < _HEADER_BYTES:
        raise IntegrityError(f"{path} is not a SQLite database.")
    if int.from_bytes(header[_APPLICATION_ID], "big") != application_id:
        raise ConfigurationError(f"{path} is a SQLite database of another application.")


def _check_modes(path: Path) -> None:
    for found in (path, *(sibling(path, side) for side in _SIDES)):
        if path_exists(found):
            _check_file(found)


def _check_file(path: Path) -> None:
    with storage_errors():
        mode = os.lstat(path).st_mode
    if not stat.S_ISREG(mode):
        raise UnsafeFileModeError(f"{path} is not a regular file.", path=str(path))
    check_private(path)


def _read_header(path: Path) -> bytes:
    with storage_errors():
        descriptor = open_no_follow(path, os.O_RDONLY)
        try:
            return os.read(descriptor, _HEADER_BYTES)
        finally:
            os.close(descriptor)


def make_parent(path: Path) -> None:
    """
    Make the directory of a database with mode 0700; one that is there is not judged.

    Raises:
        StoreUnavailableError: It can't be made.
    """
    if not path_exists(path.parent):
        make_private_directory(path.parent)


def rewrite_log(path: Path) -> None:
    """
    Write the log of a closed database afresh, durably, if it has one.

    Raises:
        StoreUnavailableError: The old log is there, as it was.
    """
    log = sibling(path, _LOG)
    if not path_exists(log):
        return
    temporary = create_temporary(log)
    try:
        with storage_errors():
            _copy(log, temporary)
        publish(temporary, log)
    finally:
        temporary.unlink(missing_ok=True)


def create_temporary(path: Path) -> Path:
    """Create an empty file of mode 0600 in the directory of *path*."""
    temporary = sibling(path, _TEMPORARY + os.urandom(8).hex())
    with storage_errors():
        os.close(open_no_follow(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
    return temporary


def _copy(source: Path, target: Path) -> None:
    reading = open_no_follow(source, os.O_RDONLY)
    try:
        with os.fdopen(open_no_follow(target, os.O_WRONLY), "wb") as writing:
            while chunk := os.read(reading, _COPY_BYTES):
                writing.write(chunk)
    finally:
        os.close(reading)


def publish(temporary: Path, path: Path) -> None:
    """
    Give a finished file its name, durable with its content.

    Raises:
        StoreUnavailableError: It may have the name, but is not known to be durable.
    """
    sync_file(temporary)
    with storage_errors():
        os.rename(temporary, path)
    sync_directory(path.parent)


def sync_file(path: Path) -> None:
    """
    Make what was written to a temporary file durable.

    Raises:
        StoreUnavailableError: It may not be.
    """
    with storage_errors():
        descriptor = open_no_follow(path, os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


_FLAGS: Final = getattr(os, "O_PATH", None)


class FileAnchor:
    """Holds one file, independent of its name; has an effect on Linux only."""

    def __init__(self) -> None:
        self._descriptor = -1

    def hold(self, path: Path) -> None:
        """
        Hold the file with this name, and release the previous one.

        Raises:
            OSError: There is none.
        """
        if _FLAGS is not None:
            descriptor = os.open(path, _FLAGS | os.O_NOFOLLOW | os.O_CLOEXEC)
            self.release()
            self._descriptor = descriptor

    @property
    def is_deleted(self) -> bool:
        """Whether the file has no name left."""
        return self._descriptor >= 0 and os.fstat(self._descriptor).st_nlink == 0

    def release(self) -> None:
        """Release the file; a second call does nothing."""
        descriptor, self._descriptor = self._descriptor, -1
        if descriptor >= 0:
            with suppress(OSError):
                os.close(descriptor)


GiveWay: TypeAlias = Callable[[Callable[[], None] | None], None]
"""Releases the connection to other threads for some time, or for one call."""

_PAGES_AT_ONCE: Final = 512


def back_up(
    source: sqlite3.Connection,
    to: Path,
    give_way: GiveWay,
    before_end: Callable[[], None],
) -> None:
    """
    Copy a database into a new file of mode 0600, durably.

    Args:
        source: The only connection; what it writes meanwhile goes into the copy too.

        to: The new file; it has its name once it is complete.

        give_way: Called between steps, and with *before_end*; what it raises ends the
            copying.

        before_end: To be called once, when there is no more than a step to do and the
            rest of the copy is durable.

    Raises:
        ConfigurationError: There is a file of this name.
        StorageFullError: There is no room for it.
        StoreUnavailableError: It can't be written.
        sqlite3.Error: As SQLite says.
    """
    if path_exists(to):
        raise ConfigurationError(f"{to} already exists.")
    temporary = create_temporary(to.absolute())
    try:
        _copy_pages(source, temporary, give_way, before_end)
        publish(temporary, to)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _copy_pages(
    source: sqlite3.Connection,
    temporary: Path,
    give_way: GiveWay,
    before_end: Callable[[], None],
) -> None:
    is_ending = False

    def settle() -> None:
        sync_file(temporary)
        before_end()

    def step(remaining: int) -> None:
        # A database never gets shorter, so that this is passed before the last step.
        nonlocal is_ending
        if remaining <= _PAGES_AT_ONCE and not is_ending:
            is_ending = True
            give_way(settle)
        else:
            give_way(None)

    target = sqlite3.connect(temporary, isolation_level=None)
    try:
        # It is thrown away if it fails, and synced by us; little stays in memory.
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "cache_size = 16"):
            target.execute(f"PRAGMA {pragma}").fetchall()
        step(source.execute("PRAGMA page_count").fetchone()[0])
        source.backup(
            target, pages=_PAGES_AT_ONCE, progress=lambda _, left, __: step(left)
        )
    finally:
        target.close()
