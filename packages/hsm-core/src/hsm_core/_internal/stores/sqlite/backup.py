# SPDX-License-Identifier: MIT
"""Backup of an open database, through its own connection."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeAlias

from hsm_core._internal.stores.filesystem.opening import path_exists
from hsm_core._internal.stores.sqlite import files
from hsm_core.errors import ConfigurationError

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
    temporary = files.create_temporary(to.absolute())
    try:
        _copy(source, temporary, give_way, before_end)
        files.publish(temporary, to)
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def _copy(
    source: sqlite3.Connection,
    temporary: Path,
    give_way: GiveWay,
    before_end: Callable[[], None],
) -> None:
    is_ending = False

    def settle() -> None:
        files.sync_file(temporary)
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
