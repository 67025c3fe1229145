# SPDX-License-Identifier: MIT
"""
File anchor: an open descriptor that reveals the deletion of a file.

A descriptor that can neither read nor write is the only one that may be closed while
SQLite has the file open: closing any other gives up the locks of the whole process.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Final

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
