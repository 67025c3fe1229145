# SPDX-License-Identifier: MIT
"""
Process that opened something, and its file descriptors.

A child made by fork shares the files that are open, but has none of the threads.
"""

from __future__ import annotations

import mmap
import os
import sys
from contextlib import suppress
from typing import Final

from hsm_core.errors import UnavailableError

_MADV_WIPEONFORK: Final = 18
"""
Standard:
    madvise(2), Linux 4.14: a child finds zeros, also if Python isn't told of the fork.
"""


def _new_mark() -> mmap.mmap:
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    mark = mmap.mmap(-1, mmap.PAGESIZE, flags=flags)
    if sys.platform == "linux":
        with suppress(OSError):
            mark.madvise(_MADV_WIPEONFORK)
    mark[0] = 1
    return mark


def _begin_child() -> None:
    global _mark
    _mark[0] = 0
    _mark = _new_mark()


_mark = _new_mark()
os.register_at_fork(after_in_child=_begin_child)


class OpeningProcess:
    """
    Process that made this object. To ask takes no system call: each use asks.

    Attributes:
        mark: Its first byte is 1 in this process, and 0 in every child.
    """

    __slots__ = ("mark",)

    def __init__(self) -> None:
        global _mark
        if not _mark[0]:
            # Another thread may have renewed it meanwhile: both marks are right.
            _mark = _new_mark()
        self.mark: Final = _mark

    def is_this(self) -> bool:
        """Return whether it is this process, rather than its parent."""
        return self.mark[0] == 1


def check_descriptors() -> None:
    """
    Check that a file could be opened, before it is concluded that one is missing.

    Raises:
        UnavailableError: No file descriptors are left.
    """
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        raise UnavailableError("No file can be opened now.") from error
