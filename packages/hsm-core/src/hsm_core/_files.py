# SPDX-License-Identifier: MIT
"""Files of settings and secrets: regular files, and access of other users (acl(5))."""

from __future__ import annotations

import errno
import os
import stat
import struct
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from hsm_core.errors import ConfigurationError, UnsafeFileModeError

_ATTRIBUTE: Final = "system.posix_acl_access"
_VERSION: Final = struct.pack("<I", 2)
_ENTRY: Final = struct.Struct("<HHI")  # tag, permissions, id: <linux/posix_acl_xattr.h>
_OWNER, _USER, _MASK = 0x01, 0x02, 0x10

MAX_SETTING_BYTES: Final = 256 * 1024
"""Maximum size of a file of settings, in bytes."""


def is_open_to_others(descriptor: int) -> bool:
    """
    Return whether anybody but its owner, root and ourselves may open a file.

    The mode alone would say too much of one that has an access list: there the bits of
    the group are the most that any entry may give. systemd hands credentials over in
    such files, which belong to root and are readable by one user more.
    """
    mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
    if mode & 0o007:
        return True
    return bool(mode & 0o070) and not _is_for_us_alone(_access_list(descriptor))


def others_may_change(descriptor: int) -> bool:
    """
    Return whether anybody but root and ourselves may change what is in a file.

    Where it has an access list, the bits of the group are the most that any entry of it
    gives.
    """
    found = os.fstat(descriptor)
    writable = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)
    return bool(writable) or found.st_uid not in {0, os.geteuid()}


def _access_list(descriptor: int) -> bytes:
    """Return the list as the kernel gives it; nothing if there is none."""
    try:
        return os.getxattr(descriptor, _ATTRIBUTE)
    except (AttributeError, OSError):
        return b""


def _is_for_us_alone(data: bytes) -> bool:
    """Return whether each entry that permits anything is for the owner or for us."""
    entries = data.removeprefix(_VERSION)
    if not entries or entries == data or len(entries) % _ENTRY.size:
        return False
    us = {0, os.geteuid()}
    return all(
        permissions == 0 or tag in {_OWNER, _MASK} or (tag == _USER and who in us)
        for tag, permissions, who in _ENTRY.iter_unpack(entries)
    )


def open_regular(path: Path) -> BinaryIO:
    """
    Open a file for reading, and wait for nobody.

    Raises:
        OSError: It can't be opened; EINVAL if it is a pipe, folder or device.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    # Of a folder no file can be made, and then nothing would close its descriptor.
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file")
    return open(descriptor, "rb")


class SettingFile(msgspec.Struct, frozen=True):
    """
    Content and access of a settings file.

    Attributes:
        data: Its bytes; of one that is too long, one byte more than is allowed.
        is_open_to_others: Whether anybody but its owner, root and this process may
            read it; a secret must not lie in such a file.
    """

    data: bytes
    is_open_to_others: bool

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


def read_file_of_settings(
    path: Path, *, field: str, limit: int, check_writers: bool = True
) -> SettingFile:
    """
    Read a file of settings.

    Args:
        path: The file.

        field: Name of the setting, for messages.

        limit: Maximum size, in bytes; the caller checks it.

        check_writers: Whether to reject a file that other users can write to.

    Raises:
        ConfigurationError: It can't be read, or is no regular file.
        UnsafeFileModeError: Others than root and this process' user may write to it.
    """
    try:
        with open_regular(path) as file:
            descriptor = file.fileno()
            if check_writers and others_may_change(descriptor):
                raise UnsafeFileModeError(
                    f"{field}: {path} is writable by other users. It must be owned by "
                    "root or this user and writable by its owner only.",
                    field=field,
                )
            is_open = is_open_to_others(descriptor)
            return SettingFile(file.read(limit + 1), is_open)
    except (OSError, ValueError) as error:
        problem = getattr(error, "strerror", None) or "bad name"
        raise ConfigurationError(
            f"{field}: {path} can't be read ({problem}).", field=field
        ) from None
