# SPDX-License-Identifier: MIT
"""Private files: mode 0600, in folders of mode 0700, replaced atomically."""

from __future__ import annotations

import fcntl
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from hsm_core._files import is_open_to_others, open_regular
from hsm_core.errors import ConfigurationError, UnsafeFileModeError

__all__ = [
    "locked_file",
    "make_private_folder",
    "read_private_file",
    "remove_private_file",
    "replace_file",
    "sync_folder",
    "write_private_file",
]

_MAX_BYTES: Final = 256 * 1024
_OTHERS: Final = 0o077


def read_private_file(path: Path) -> bytes | None:
    """
    Return the contents of a file that only this user can read; None if there is none.

    Args:
        path: The file. Its folder is checked too.

    Raises:
        ConfigurationError: It can't be read, is no regular file, or is longer than
            256 KiB.
        UnsafeFileModeError: Other users have access to the file or its folder.
    """
    try:
        file = open_regular(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from None
    with file:
        descriptor = file.fileno()
        found = os.fstat(descriptor)
        _check_folder(path.parent)
        if is_open_to_others(descriptor):
            raise _unsafe(path, found, 0o600)
        _check_owner(path, found)
        data = file.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise ConfigurationError(f"{path} must be at most {_MAX_BYTES} bytes.")
    return data


def write_private_file(path: Path, data: bytes) -> None:
    """
    Replace a file atomically and durably, with mode 0600.

    Missing folders are made, with mode 0700.

    Raises:
        ConfigurationError: It can't be written; an existing file is unchanged.
        UnsafeFileModeError: Other users have access to the folder.
    """
    try:
        make_private_folder(path.parent)
        replace_file(path, data)
    except OSError as error:
        raise ConfigurationError(
            f"{path} can't be written ({error.strerror})."
        ) from None


def replace_file(path: Path, data: bytes) -> None:
    """
    Create or replace a file of mode 0600, atomically and durably.

    Raises:
        OSError: It can't be written; the file is as it was, or the new one is complete.
    """
    # It loads a dozen modules, and most programs write no such file.
    import tempfile

    descriptor, name = tempfile.mkstemp(prefix=f".{path.name[:64]}.", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """
    Make the names in a folder durable.

    Raises:
        OSError: They can't be synced.
    """
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_private_file(path: Path) -> bool:
    """
    Remove a file durably, and return whether it was there.

    Raises:
        ConfigurationError: It can't be removed.
    """
    try:
        path.unlink()
        sync_folder(path.parent)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ConfigurationError(
            f"{path} can't be removed ({error.strerror})."
        ) from None
    return True


def make_private_folder(folder: Path) -> None:
    """
    Make a folder and its parents, each with mode 0700, or check the mode of one.

    Raises:
        OSError: It can't be made.
        UnsafeFileModeError: Other users have access to it.
    """
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    for each in reversed(missing):
        each.mkdir(mode=0o700, exist_ok=True)
        sync_folder(each.parent)
    _check_folder(folder)


@contextmanager
def locked_file(path: Path) -> Iterator[None]:
    """
    Hold an exclusive lock between processes of this user.

    Args:
        path: File of the lock; it is made if it is missing, and stays.

    Raises:
        ConfigurationError: The file can't be opened.
        UnsafeFileModeError: Other users have access to the folder.
    """
    try:
        make_private_folder(path.parent)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unreadable(path, error) from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _check_folder(folder: Path) -> None:
    found = folder.stat()
    if found.st_mode & _OTHERS:
        raise _unsafe(folder, found, 0o700)
    _check_owner(folder, found)


def _check_owner(path: Path, found: os.stat_result) -> None:
    if found.st_uid not in {0, os.geteuid()}:
        raise UnsafeFileModeError(
            f"{path} belongs to another user (UID {found.st_uid}). It must belong to "
            "you or to root."
        )


def _unsafe(path: Path, found: os.stat_result, mode: int) -> UnsafeFileModeError:
    return UnsafeFileModeError(
        f"{path} has mode {stat.S_IMODE(found.st_mode):04o}, which gives other users "
        f"access. Run: chmod {mode:o} {path}"
    )


def _unreadable(path: Path, error: OSError | ValueError) -> ConfigurationError:
    why = getattr(error, "strerror", None) or "invalid name"
    return ConfigurationError(f"{path} can't be read ({why}).")
