# SPDX-License-Identifier: MIT
"""Making the tables of a database, and bringing older ones up to date."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from hsm_core.errors import ConfigurationError, IntegrityError

if TYPE_CHECKING:
    import sqlite_utils

MigrationStep: TypeAlias = Callable[["sqlite_utils.Database"], None]
"""
Makes the next version of a schema, inside a transaction that it must not end.

``create_table``, ``create_index`` and ``execute`` keep to that in every version of
sqlite-utils; methods that change rows don't.
"""


@dataclass(frozen=True, slots=True)
class Schema:
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
    # What has no pages of its own runs code: a trigger, a view, a virtual table.
    foreign = "SELECT 1 FROM sqlite_schema WHERE coalesce(rootpage, 0) = 0"
    if connection.execute(foreign).fetchone() is not None:
        raise IntegrityError(f"{name} holds unknown triggers, views or virtual tables.")
    if found < schema.version:
        _apply(connection, schema, found)


def _apply(connection: sqlite3.Connection, schema: Schema, found: int) -> None:
    try:
        from sqlite_utils import Database
    except ImportError as error:
        raise ConfigurationError(
            "Creating the tables of a SQLite store needs sqlite-utils, which is not "
            "installed."
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
