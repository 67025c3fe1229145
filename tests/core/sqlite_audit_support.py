"""What the tests of the trail in SQLite share: logs to write, rows to attack."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Unpack

from hsm_core._internal.stores.sqlite.audit import SqliteAuditLog
from tests.core.audit_support import Given, options


def open_log(path: Path, **given: Unpack[Given]) -> SqliteAuditLog:
    """Open the log at *path*."""
    return SqliteAuditLog.open(path, options(**given))


@contextmanager
def opened(path: Path, **given: Unpack[Given]) -> Iterator[SqliteAuditLog]:
    """Open the log at *path* and close it in order."""
    log = open_log(path, **given)
    try:
        yield log
    finally:
        log.close()


@contextmanager
def edited(path: Path) -> Iterator[sqlite3.Connection]:
    """Open the database of a trail that nobody has open, as an attacker would."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def rows_of(path: Path) -> dict[int, bytes]:
    """Return all records of a trail that nobody has open."""
    with edited(path) as connection:
        return dict(connection.execute("SELECT seq, line FROM records ORDER BY seq"))


def replace_rows(path: Path, rows: dict[int, bytes]) -> None:
    """Overwrite all records of a log that nobody has open."""
    with edited(path) as connection:
        connection.execute("DELETE FROM records")
        connection.executemany("INSERT INTO records VALUES (?, ?)", rows.items())
