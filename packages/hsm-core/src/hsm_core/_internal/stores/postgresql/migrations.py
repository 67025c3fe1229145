# SPDX-License-Identifier: MIT
"""
Schema of a cluster's database: its version, its migrations, and its shape.

The shape of all tables is noted with each migration, so that a database in which a
column or an index was changed later is refused when it is opened, with a sentence.

A migration only adds: nodes of the previous level work while it is made, and after it,
with the tables that they know. So its version keeps no program out; the level of the
cluster does (`Membership.join`), which rises when the last older node is gone.
"""

from __future__ import annotations

import hashlib
import time
from importlib import resources
from typing import TYPE_CHECKING, Final

from hsm_core._internal.stores.postgresql.connection import (
    commit,
    postgres_errors,
    roll_back,
)
from hsm_core.errors import ConfigurationError, IntegrityError, StoreUnavailableError

if TYPE_CHECKING:
    from hsm_core._internal.stores.postgresql.driver import ServerConnection

_PATIENCE_SECONDS: Final = 60.0
_PAUSE_SECONDS: Final = 0.5
_LOCK: Final = 0x46484B31
"""Advisory lock of migrations: ``FHK1``."""

_BEGIN: Final = (
    "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; "
    f"SELECT pg_advisory_xact_lock({_LOCK}); SET LOCAL lock_timeout = 500"
)
"""
Begins a migration, once it is this node's turn.

To alter a table waits for all that use it, such as a dump, and every later user of it
waits behind that: no longer than nodes in work bear.
"""

_IN_USE: Final = frozenset({"40P01", "55P03"})
"""deadlock_detected, lock_not_available."""

_VERSION_TABLE: Final = "ferrohsm_schema"
_FOLDER: Final = "migrations"
_CREATE: Final = (
    "CREATE TABLE ferrohsm_schema (version integer PRIMARY KEY, "
    "tables text[] NOT NULL, shape text NOT NULL, "
    "migrated_at timestamptz NOT NULL DEFAULT now())"
)
_TABLES: Final = (
    "SELECT relname FROM pg_class WHERE relnamespace = current_schema()::regnamespace "
    "AND relkind IN ('r', 'p') ORDER BY relname"
)
_ACTIVE: Final = (
    "SELECT c.relname FROM pg_class AS c "
    "WHERE c.relnamespace = current_schema()::regnamespace AND (c.relkind IN "
    "('v', 'm', 'f') OR c.relrowsecurity OR c.relhassubclass "
    "OR EXISTS (SELECT 1 FROM pg_trigger AS t WHERE t.tgrelid = c.oid) "
    "OR EXISTS (SELECT 1 FROM pg_rewrite AS r WHERE r.ev_class = c.oid)) LIMIT 1"
)
"""Whatever runs code or hides rows: views, triggers, rules, row security, children."""


_SHAPE: Final = (
    "SELECT c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull "
    "FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid "
    "WHERE c.relnamespace = current_schema()::regnamespace "
    "AND c.relname = ANY ($1) AND a.attnum > 0 AND NOT a.attisdropped "
    "UNION ALL SELECT t.relname, c.relname, i.indisunique::text, i.indisvalid "
    "FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indexrelid "
    "JOIN pg_class AS t ON t.oid = i.indrelid "
    "WHERE t.relnamespace = current_schema()::regnamespace AND t.relname = ANY ($1)"
)
"""Columns of tables, and names of their indexes, with which of them are unique."""


def steps() -> list[str]:
    """Return the SQL of all migrations; the n-th makes version n."""
    folder = resources.files(__package__) / _FOLDER
    names = sorted(each.name for each in folder.iterdir() if each.name.endswith(".sql"))
    return [(folder / name).read_text("utf-8") for name in names]


def migrate(connection: ServerConnection, name: str) -> None:
    """
    Migrate a database to the version of this program, in one transaction.

    Of many nodes that start at once one does it, and the others wait for it.

    Args:
        connection: In autocommit mode.

        name: What messages call the database.

    Raises:
        ConfigurationError: It holds tables that are none of an HSM.
        IntegrityError: Its tables are not as we make them.
        UnsettledError: The migration may have been made.
        StoreUnavailableError: It can't be reached, or hangs, or others use its tables
            for too long.
    """
    ends = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            _migrate_once(connection, name)
            return
        except StoreUnavailableError as error:
            state = getattr(error.__cause__, "sqlstate", None)
            if state not in _IN_USE or time.monotonic() > ends:
                raise
        # Others that wait behind a lock that we did not get go on meanwhile.
        time.sleep(_PAUSE_SECONDS)


def _migrate_once(connection: ServerConnection, name: str) -> None:
    try:
        with postgres_errors(), connection.patiently(_PATIENCE_SECONDS):
            connection.execute(_BEGIN)
            _bring_up_to_date(connection, name)
        with connection.patiently(_PATIENCE_SECONDS):
            commit(connection)
    except BaseException:
        roll_back(connection)
        raise


def check_present(connection: ServerConnection, name: str) -> None:
    """
    Check that a database holds a cluster.

    Raises:
        ConfigurationError: It holds none.
        IntegrityError: Its tables are not as we make them.
        psycopg.Error: They can't be read.
    """
    if not _checked_version(connection, name):
        raise ConfigurationError(f"{name} holds no cluster. Check the address.")


def _checked_version(connection: ServerConnection, name: str) -> int:
    """Return the version of a database's schema, which may be a newer program's."""
    found = _version(connection, name)
    active = connection.execute(_ACTIVE).fetchone()
    if active is not None:
        raise IntegrityError(
            f"{name} holds unknown views, triggers, rules or row security, on "
            f"{active[0]!r}."
        )
    return found


def _bring_up_to_date(connection: ServerConnection, name: str) -> None:
    scripts = steps()
    found = _checked_version(connection, name)
    ours: list[str] = []
    if found:
        ours = _check_shape(connection, name)
    else:
        connection.execute(_CREATE)
    for version, script in enumerate(scripts[found:], found + 1):
        others = set(_tables(connection)) - set(ours)
        connection.execute(script.encode())
        ours = sorted(set(_tables(connection)) - others)
        connection.execute(
            "INSERT INTO ferrohsm_schema (version, tables, shape) VALUES ($1, $2, $3)",
            (version, ours, _shape(connection, ours)),
        )


def _check_shape(connection: ServerConnection, name: str) -> list[str]:
    """Check that our tables are as they were made, and return their names."""
    found = connection.execute(
        "SELECT tables, shape FROM ferrohsm_schema ORDER BY version DESC LIMIT 1"
    ).fetchone()
    if found is None or found[1] != _shape(connection, found[0]):
        raise IntegrityError(
            f"{name} has tables whose definitions were changed. Restore them, or the "
            "database from a backup."
        )
    return list(found[0])


def _tables(connection: ServerConnection) -> list[str]:
    return [found for (found,) in connection.execute(_TABLES)]


def _shape(connection: ServerConnection, tables: list[str]) -> str:
    rows = sorted(map(repr, connection.execute(_SHAPE, (tables,))))
    return hashlib.sha256("\n".join(rows).encode()).hexdigest()


def _version(connection: ServerConnection, name: str) -> int:
    schema = connection.execute("SELECT current_schema()").fetchone()
    if schema is None or schema[0] is None:
        raise ConfigurationError(
            f"{name} has no schema for tables. Create one, or set search_path."
        )
    tables = _tables(connection)
    if _VERSION_TABLE in tables:
        found = connection.execute(
            "SELECT count(*), coalesce(max(version), 0) FROM ferrohsm_schema"
        ).fetchone()
        if found is None or found[0] != found[1] or not found[0]:
            raise IntegrityError(
                f"The table ferrohsm_schema of {name} is not valid. Restore the "
                "database from a backup."
            )
        return int(found[1])
    if tables:
        raise ConfigurationError(
            f"{name} holds tables of another program, such as {tables[0]!r}. Use an "
            "empty database."
        )
    return 0
