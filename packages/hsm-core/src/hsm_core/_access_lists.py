# SPDX-License-Identifier: MIT
"""Access of other users to a file, including access control lists (acl(5))."""

from __future__ import annotations

import os
import stat
import struct
from typing import Final

_ATTRIBUTE: Final = "system.posix_acl_access"
_VERSION: Final = struct.pack("<I", 2)
_ENTRY: Final = struct.Struct("<HHI")  # tag, permissions, id: <linux/posix_acl_xattr.h>
_OWNER, _USER, _MASK = 0x01, 0x02, 0x10


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
