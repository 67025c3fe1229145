# SPDX-License-Identifier: MIT
"""A copy of a database that is in use, made through its own connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from hsm_core._internal.stores.filesystem.opening import path_exists
from hsm_core._internal.stores.sqlite import files
from hsm_core.errors import ConfigurationError

__all__ = ["back_up"]

_PAGES_AT_ONCE: Final = 512


def back_up(source: sqlite3.Connection, to: Path, give_way: Callable[[], None]) -> None:
    """
    Copy a database into a new file of mode 0600, durably.

    Args:
        source: The only connection; what it writes meanwhile goes into the copy too.

        to: The new file; it has its name once it is complete.

        give_way: Called between steps, to let others use the connection; what it
            raises ends the copying.

    Raises:
        ConfigurationError: There is a file of this name.
        StorageFullError: There is no room for it.
        StoreUnavailableError: It can't be written.
        sqlite3.Error: As SQLite says.
    """
    if path_exists(to):
        raise ConfigurationError(f"{to} is there already.")
    temporary = files.create_temporary(to)
    try:
        target = sqlite3.connect(temporary, isolation_level=None)
        try:
            source.backup(target, pages=_PAGES_AT_ONCE, progress=lambda *_: give_way())
        finally:
            target.close()
        files.publish(temporary, to)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
