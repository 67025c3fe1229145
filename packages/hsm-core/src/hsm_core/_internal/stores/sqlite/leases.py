# SPDX-License-Identifier: MIT
"""Leases in a SQLite database: a row a name, changed in one transaction."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hsm_core._internal.stores.lease_rules import (
    MAX_LEASE_BYTES,
    LeaseRule,
    RuledLeases,
    decode_lease,
    encode_lease,
)
from hsm_core._internal.stores.sqlite.database import Database
from hsm_core.errors import IntegrityError, StoreUnavailableError
from hsm_core.protocols import Clock, Lease

if TYPE_CHECKING:
    import sqlite_utils


def make_lease_table(tables: sqlite_utils.Database) -> None:
    """Make the table; a `MigrationStep` of the database that leases lie in."""
    tables.execute(
        "CREATE TABLE leases (name TEXT PRIMARY KEY, lease BLOB NOT NULL) WITHOUT ROWID"
    )


class SqliteLeases(RuledLeases):
    """
    Leases as rows.

    Args:
        database: Has the table of `make_lease_table`; not closed from here.

        clock: Tells when a lease has expired.
    """

    def __init__(self, database: Database, clock: Clock) -> None:
        super().__init__(clock)
        self._database = database

    def __repr__(self) -> str:
        return f"<SqliteLeases in {self._database!r}>"

    def _change(self, name: str, rule: LeaseRule) -> Lease | None:
        try:
            with self._database.transaction() as connection:
                found = connection.execute(
                    "SELECT lease FROM leases WHERE name = ?", (name,)
                ).fetchone()
                stored: object = found[0] if found else None
                wanted = rule(None if found is None else _lease(name, stored))
                if wanted is not None:
                    connection.execute(
                        "INSERT OR REPLACE INTO leases (name, lease) VALUES (?, ?)",
                        (name, encode_lease(wanted)),
                    )
                return wanted
        except IntegrityError as error:
            raise StoreUnavailableError(f"The lease {name} can't be read.") from error


def _lease(name: str, stored: object) -> Lease:
    if not isinstance(stored, bytes) or len(stored) > MAX_LEASE_BYTES:
        raise StoreUnavailableError(f"The lease {name} can't be read.")
    return decode_lease(name, stored)
