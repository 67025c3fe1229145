# SPDX-License-Identifier: MIT
"""Translation of SQLite's errors into store errors."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from hsm_core.errors import (
    HSMError,
    IntegrityError,
    StorageFullError,
    StoreUnavailableError,
)

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


class UnsettledCommitError(StoreUnavailableError):
    """A transaction may have been made; it is known after the database is reopened."""


class UnreadableValueError(IntegrityError):
    """One value is too long, or no text; the database may be healthy otherwise."""


def _code_of(error: sqlite3.Error) -> int | None:
    code: object = getattr(error, "sqlite_errorcode", None)
    return code & _PRIMARY if isinstance(code, int) else None


def is_input_output(error: sqlite3.Error) -> bool:
    """Return whether the operating system could not read, write or sync a file."""
    return _code_of(error) == sqlite3.SQLITE_IOERR


def translate(error: sqlite3.Error) -> HSMError:
    """
    Return the error that callers get for one of SQLite's.

    A table, column or constraint that is not as we made it is damage, like a bad page;
    so is text that is no UTF-8, for which the driver gives no code.
    """
    code = _code_of(error)
    if code == sqlite3.SQLITE_FULL:
        return StorageFullError()
    if code == sqlite3.SQLITE_TOOBIG or (
        code is None and isinstance(error, sqlite3.OperationalError)
    ):
        return UnreadableValueError("The database holds an unreadable value.")
    if code in _DAMAGED:
        return IntegrityError("The database is damaged.")
    return StoreUnavailableError()


@contextmanager
def sqlite_errors() -> Iterator[None]:
    """Turn every error of SQLite in a block into one of ours."""
    try:
        yield
    except sqlite3.Error as error:
        raise translate(error) from error
    except UnicodeDecodeError as error:
        # So the driver fails to tell what SQLite says of a name that is no text.
        raise IntegrityError("The database is damaged.") from error
