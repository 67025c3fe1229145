# SPDX-License-Identifier: MIT
"""Connection to a database: opening, checks, checkpoint and closing."""

from __future__ import annotations

import ctypes
import os
import sqlite3
import sys
import weakref
from contextlib import suppress
from pathlib import Path
from typing import Final

from hsm_core._internal.stores.sqlite.failures import translate
from hsm_core._internal.stores.sqlite.migration import Schema, migrate
from hsm_core.errors import (
    HSMError,
    IntegrityError,
    StoreLockedError,
    StoreUnavailableError,
)

_PATIENCE_SECONDS: Final = 1.0
"""Seconds that opening waits for another program with the file open."""

_LONGEST_BYTES: Final = 64 * 1024 * 1024


class _Connection(sqlite3.Connection):
    """A connection that can be found again after a fork."""


_connections: Final[weakref.WeakSet[_Connection]] = weakref.WeakSet()


def _keep_in_child() -> None:
    # A child that ends, or drops its copy of a connection, would close it: move the log
    # into the database and delete it, under the feet of the parent. Nobody counts this
    # reference down again, so that never happens.
    for connection in tuple(_connections):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


os.register_at_fork(after_in_child=_keep_in_child)


def connect(path: Path, schema: Schema) -> sqlite3.Connection:
    """
    Open a prepared file, and bring its tables up to date.

    Raises:
        ConfigurationError: Its schema is newer than ours, or can't be made.
        IntegrityError: It is damaged.
        StoreLockedError: Another program has it open.
        StoreUnavailableError: It can't be opened now.
    """
    try:
        connection = sqlite3.connect(
            path,
            timeout=_PATIENCE_SECONDS,
            isolation_level=None,
            check_same_thread=False,
            factory=_Connection,
        )
        _connections.add(connection)
        try:
            _set_up(connection, schema)
            migrate(connection, schema, str(path))
        except BaseException:
            close(connection, fold_log=False)
            raise
    except sqlite3.Error as error:
        raise _opening_error(error, path) from error
    except UnicodeDecodeError as error:
        raise IntegrityError("The database is damaged.") from error
    return connection


def _opening_error(error: sqlite3.Error, path: Path) -> HSMError:
    code: object = getattr(error, "sqlite_errorcode", None)
    if isinstance(code, int) and code & 0xFF == sqlite3.SQLITE_BUSY:
        return StoreLockedError(
            f"{path} is locked: another program has it open.", path=str(path)
        )
    return translate(error)


def _set_up(connection: sqlite3.Connection, schema: Schema) -> None:
    # Exclusive before the log is first touched: its index is then in our memory, and
    # no -shm file lets another process in.
    for name, value in (
        ("locking_mode", "EXCLUSIVE"),
        ("trusted_schema", "OFF"),
        ("cell_size_check", "ON"),
        ("secure_delete", "ON"),
        ("synchronous", "FULL"),
        ("foreign_keys", "ON"),
        ("wal_autocheckpoint", "0"),
        ("temp_store", "MEMORY"),
        ("cache_size", "-65536"),
    ):
        connection.execute(f"PRAGMA {name} = {value}").fetchall()
    # A longer value is none of ours, and is refused before room is made for it.
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_BYTES)
    if not connection.execute("PRAGMA page_count").fetchone()[0]:
        # Before there is a log, so that the header always tells whose file it is.
        connection.execute(f"PRAGMA application_id = {schema.application_id}")
    mode: object = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise StoreUnavailableError(
            "The database does not support write-ahead logging."
        )
    found: object = connection.execute("PRAGMA application_id").fetchone()[0]
    if found != schema.application_id:
        raise IntegrityError(
            "The database's write-ahead log belongs to another database."
        )


def verify(connection: sqlite3.Connection) -> None:
    """
    Read every page and index entry of a database.

    Raises:
        IntegrityError: They do not fit together.
        sqlite3.Error: They can't be read.
    """
    found: object = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if found != "ok":
        raise IntegrityError("The database is damaged.")


def checkpoint(connection: sqlite3.Connection, mode: str) -> bool:
    """
    Move what the log holds into the database, durably.

    Args:
        connection: The only one.

        mode: ``PASSIVE``, or ``TRUNCATE`` to make the log empty too.

    Returns:
        Whether all of it was moved.

    Raises:
        sqlite3.Error: Some of it may have been.
    """
    busy, logged, moved = connection.execute(
        f"PRAGMA wal_checkpoint({mode})"
    ).fetchone()
    return not busy and bool(logged == moved)


def close(connection: sqlite3.Connection, *, fold_log: bool) -> None:
    """
    Close a connection, whatever state it is in.

    Args:
        connection: The only one.

        fold_log: Whether the log may be moved into the database first.
    """
    with suppress(sqlite3.Error):
        # Where Python can't say so, SQLite folds what it knows to be committed.
        if sys.version_info >= (3, 12) and not fold_log:
            connection.setconfig(sqlite3.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE)
        if fold_log:
            checkpoint(connection, "TRUNCATE")
    with suppress(sqlite3.Error):
        connection.close()
