# SPDX-License-Identifier: MIT
"""Schema of a cluster's database: its version, its migrations, and what it must be."""

from __future__ import annotations

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
_LOCK: Final = 0x46484B31
"""Advisory lock of migrations: ``FHK1``."""

_VERSION_TABLE: Final = "ferrohsm_schema"
_FOLDER: Final = "migrations"
_CREATE: Final = (
    "CREATE TABLE ferrohsm_schema (version integer PRIMARY KEY, "
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
        ConfigurationError: It holds tables that are none of an HSM, or a newer
            program migrated it.
        IntegrityError: Its tables are not as we make them.
        UnsettledError: The migration may have been made.
        StoreUnavailableError: It can't be reached, or hangs.
    """
    try:
        with postgres_errors(), connection.patiently(_PATIENCE_SECONDS):
            connection.execute(
                "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; "
                f"SELECT pg_advisory_xact_lock({_LOCK})"
            )
            _bring_up_to_date(connection, name)
        with connection.patiently(_PATIENCE_SECONDS):
            commit(connection)
    except BaseException:
        roll_back(connection)
        raise


def check_present(connection: ServerConnection, name: str) -> None:
    """
    Check that a database holds a cluster that this program can read.

    Raises:
        ConfigurationError: It holds none, or a newer one.
        IntegrityError: Its tables are not as we make them.
        psycopg.Error: They can't be read.
    """
    if not _checked_version(connection, name):
        raise ConfigurationError(f"{name} holds no cluster.")


def _checked_version(connection: ServerConnection, name: str) -> int:
    """Return the version of a database's schema, which this program knows."""
    newest, found = len(steps()), _version(connection, name)
    if not 0 <= found <= newest:
        raise ConfigurationError(
            f"{name} has schema version {found}; this release supports up to "
            f"{newest}. Use the newer release."
        )
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
    if not found:
        connection.execute(_CREATE)
    for version, script in enumerate(scripts[found:], found + 1):
        connection.execute(script.encode())
        connection.execute(
            "INSERT INTO ferrohsm_schema (version) VALUES ($1)", (version,)
        )


def _version(connection: ServerConnection, name: str) -> int:
    schema = connection.execute("SELECT current_schema()").fetchone()
    if schema is None or schema[0] is None:
        raise ConfigurationError(
            f"{name} has no schema for tables. Create one, or set search_path."
        )
    tables = [found for (found,) in connection.execute(_TABLES)]
    if _VERSION_TABLE in tables:
        found = connection.execute(
            "SELECT count(*), coalesce(max(version), 0) FROM ferrohsm_schema"
        ).fetchone()
        if found is None or found[0] != found[1] or not found[0]:
            raise IntegrityError(f"{name} has a list of migrations that is none.")
        return int(found[1])
    if tables:
        raise ConfigurationError(
            f"{name} holds tables of another program, such as {tables[0]!r}. Use an "
            "empty database."
        )
    return 0


def check_version(connection: ServerConnection) -> None:
    """
    Check that no newer program has migrated the database meanwhile.

    Raises:
        StoreUnavailableError: One has, or it can't be told.
    """
    with postgres_errors():
        found = connection.execute("SELECT max(version) FROM ferrohsm_schema")
        version = found.fetchone()
    if version is None or version[0] != len(steps()):
        raise StoreUnavailableError(
            "The database has another schema version; restart this node."
        )
