# SPDX-License-Identifier: MIT
"""Regular files, opened safely even if replaced by something else."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import BinaryIO


class NotRegularError(OSError):
    """The path is not a regular file."""


def open_regular(path: Path, *, follows_links: bool = True) -> BinaryIO:
    """
    Open a file for reading without blocking.

    A pipe without a writer would block, and one without an end would be read forever.

    Raises:
        NotRegularError: It is no regular file.
        OSError: It can't be opened.
    """
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK
    descriptor = os.open(path, flags if follows_links else flags | os.O_NOFOLLOW)
    # Of a folder no file is made, and nothing would close it.
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotRegularError
    return open(descriptor, "rb")
