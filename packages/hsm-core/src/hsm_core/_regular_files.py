# SPDX-License-Identifier: MIT
"""Files that are read again and again, whatever somebody has put in their place."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


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
