# SPDX-License-Identifier: MIT
"""Connection to a database: opening, migration, checkpoint, closing and errors."""

from __future__ import annotations

import ctypes
import os
import sqlite3
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from hsm_core._internal.stores.records import DamagedRecordError
from hsm_core.errors import (
    ConfigurationError,
    HSMError,
    IntegrityError,
    StorageFullError,
    StoreLockedError,
    StoreUnavailableError,
)

if TYPE_CHECKING:
    import sqlite_utils


_PRIMARY: Final = 0xFF
_DAMAGED: Final = frozenset(
    {
        sqlite3.SQLITE_CONSTRAINT,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_ERROR,
        sqlite3.SQLITE_FORMAT,
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_NOTADB,
    }
)
_NAME: Final = "The database"


class UnreadableValueError(DamagedRecordError):
    """One value is too long, or no text; the database may be healthy otherwise."""


def _code_of(error: sqlite3.Error) -> int | None:
    code: object = getattr(error, "sqlite_errorcode", None)
    return code & _PRIMARY if isinstance(code, int) else None


def is_input_output(error: sqlite3.Error) -> bool:
    """Return whether the operating system could not read, write or sync a file."""
    return _code_of(error) == sqlite3.SQLITE_IOERR


def translate(error: sqlite3.Error, name: str = _NAME) -> HSMError:
    """
    Return the error that callers get for one of SQLite's.

    A table, column or constraint that is not as we made it is damage, like a bad page;
    so is text that is no UTF-8, for which the driver gives no code.

    Args:
        error: That of SQLite.

        name: Of the database. Who opens it sees its path; clients of a server do not.
    """
    code = _code_of(error)
    if code == sqlite3.SQLITE_FULL:
        return StorageFullError()
    if code == sqlite3.SQLITE_TOOBIG or (
        code is None and isinstance(error, sqlite3.OperationalError)
    ):
        return UnreadableValueError(f"{name} holds an unreadable value.")
    if code in _DAMAGED:
        return IntegrityError(f"{name} is damaged.")
    return StoreUnavailableError()


@contextmanager
def sqlite_errors() -> Iterator[None]:
    """Turn every error of SQLite in a block into one of ours."""
    try:
        yield
    except SQLITE_ERRORS as error:
        raise own_error(error) from error


SQLITE_ERRORS: Final = (sqlite3.Error, UnicodeDecodeError)
"""Errors of the driver; the second is for a name that is not valid UTF-8."""


def own_error(error: sqlite3.Error | UnicodeDecodeError, name: str = _NAME) -> HSMError:
    """Return our own error for one of `SQLITE_ERRORS`; see `translate`."""
    if isinstance(error, UnicodeDecodeError):
        return IntegrityError(f"{name} is damaged.")
    return translate(error, name)


MigrationStep: TypeAlias = Callable[["sqlite_utils.Database"], None]
"""
Makes the next version of a schema, inside a transaction that it must not end.

``create_table``, ``create_index`` and ``execute`` keep to that in every version of
sqlite-utils; methods that change rows don't.
"""


class Schema(msgspec.Struct, frozen=True):
    """
    What tables a kind of database has.

    Attributes:
        application_id: Stands in the header of the file and tells the kinds apart.
        steps: The n-th makes version n of what version n - 1 left; the first begins
            with an empty database.
    """

    application_id: int
    steps: tuple[MigrationStep, ...]

    @property
    def version(self) -> int:
        """The version that this program works with."""
        return len(self.steps)


def migrate(connection: sqlite3.Connection, schema: Schema, name: str) -> None:
    """
    Migrate a database to the version of its schema, in one transaction.

    Args:
        connection: In autocommit mode.

        schema: What it should be.

        name: What messages call the database.

    Raises:
        ConfigurationError: It was written by a newer program, or sqlite-utils is not
            installed.
        IntegrityError: It has triggers, views or virtual tables, which we never make.
        sqlite3.Error: As SQLite says.
    """
    found: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if not 0 <= found <= schema.version:
        raise ConfigurationError(
            f"{name} has schema version {found}; this release supports up to "
            f"{schema.version}. Use the newer release."
        )
    refuse_foreign(connection, name)
    if found < schema.version:
        _apply(connection, schema, found)


def refuse_foreign(connection: sqlite3.Connection, name: str) -> None:
    """
    Check that nothing in a database runs code, as a trigger, view or virtual table may.

    Raises:
        IntegrityError: Something does; none of it is ours.
    """
    # Each of them has no pages of its own.
    foreign = "SELECT 1 FROM sqlite_schema WHERE coalesce(rootpage, 0) = 0"
    if connection.execute(foreign).fetchone() is not None:
        raise IntegrityError(f"{name} holds unknown triggers, views or virtual tables.")


def _apply(connection: sqlite3.Connection, schema: Schema, found: int) -> None:
    try:
        from sqlite_utils import Database
    except ImportError as error:
        raise ConfigurationError(
            "Creating the tables of a SQLite store needs sqlite-utils, which is not "
            "installed. Install hsm-core[sqlite]."
        ) from error
    tables = Database(connection, recursive_triggers=False, execute_plugins=False)
    connection.execute("BEGIN IMMEDIATE")
    try:
        for step in schema.steps[found:]:
            step(tables)
            if not connection.in_transaction:
                raise RuntimeError("A migration step ended the transaction.")
        connection.execute(f"PRAGMA user_version = {schema.version}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


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
    connection = open_exclusively(path, schema.application_id)
    try:
        with _opening_errors(path):
            migrate(connection, schema, str(path))
    except BaseException:
        close(connection, fold_log=False)
        raise
    return connection


def open_exclusively(
    path: Path, application_id: int, *, patience_seconds: float = _PATIENCE_SECONDS
) -> sqlite3.Connection:
    """
    Open a prepared file, whatever tables it has; errors as of `connect`.

    Args:
        path: Of the file.

        application_id: Which kind of database it is.

        patience_seconds: How long to wait while another program has it open.
    """
    with _opening_errors(path):
        connection = sqlite3.connect(
            path,
            timeout=patience_seconds,
            isolation_level=None,
            check_same_thread=False,
            factory=_Connection,
        )
        _connections.add(connection)
        try:
            _set_up(connection, application_id)
        except BaseException:
            close(connection, fold_log=False)
            raise
    return connection


@contextmanager
def _opening_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except SQLITE_ERRORS as error:
        raise _opening_error(error, path) from error


def _opening_error(error: sqlite3.Error | UnicodeDecodeError, path: Path) -> HSMError:
    code: object = getattr(error, "sqlite_errorcode", None)
    if isinstance(code, int) and code & 0xFF == sqlite3.SQLITE_BUSY:
        return StoreLockedError(
            f"{path} is locked: another program has it open.", path=str(path)
        )
    return own_error(error, f"The database {path}")


def _set_up(connection: sqlite3.Connection, application_id: int) -> None:
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
        ("cache_size", "-4096"),
    ):
        connection.execute(f"PRAGMA {name} = {value}").fetchall()
    # A longer value is none of ours, and is refused before room is made for it.
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _LONGEST_BYTES)
    if not connection.execute("PRAGMA page_count").fetchone()[0]:
        # Before there is a log, so that the header always tells whose file it is.
        connection.execute(f"PRAGMA application_id = {application_id}")
    mode: object = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
    if mode != "wal":
        raise StoreUnavailableError(
            "The database does not support write-ahead logging."
        )
    found: object = connection.execute("PRAGMA application_id").fetchone()[0]
    if found != application_id:
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
        raise IntegrityError(f"{_NAME} is damaged.")


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
