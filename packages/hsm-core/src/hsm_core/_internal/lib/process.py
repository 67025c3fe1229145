# SPDX-License-Identifier: MIT
"""
Process that opened something.

A child made by fork shares the files that are open, but has none of the threads.
"""

from __future__ import annotations

import os

_mark = object()


def _begin_child() -> None:
    global _mark
    _mark = object()


os.register_at_fork(after_in_child=_begin_child)


class OpeningProcess:
    """Process that made this object. To ask takes no system call: each use asks."""

    __slots__ = ("_mark",)

    def __init__(self) -> None:
        self._mark = _mark

    def is_this(self) -> bool:
        """Return whether it is this process, rather than its parent."""
        return self._mark is _mark
