# SPDX-License-Identifier: MIT
"""
Index checks of one key: its name, operations and list positions.

In an honest database it does, for all of it is changed in one transaction. Whoever
edits these tables alone would hide a key from listings that goes on being used.
"""

from __future__ import annotations

import sqlite3
from typing import Final

from hsm_core._internal.stores.naming import is_key_id
from hsm_core._internal.stores.sqlite import places
from hsm_core._internal.stores.sqlite.database import Row
from hsm_core._internal.stores.sqlite.key_index import find_row
from hsm_core._internal.stores.sqlite.key_rows import (
    BEHIND,
    BY_CLAIM,
    BY_ID,
    NUMBERED,
    claimed,
    is_listed,
    read_entry,
)
from hsm_core.errors import KeyTamperedError
from hsm_core.model import KeyId
from hsm_core.protocols import IndexEntry

_ROWS_AT_ONCE: Final = 256
_OPERATION: Final = "SELECT n FROM operations WHERE operation_id = ?"
_CLAIM: Final = (
    "UPDATE keys SET claim = ? WHERE n = ? "
    "AND NOT EXISTS (SELECT 1 FROM keys WHERE claim = ?)"
)
_REMEMBER: Final = "INSERT OR IGNORE INTO operations (operation_id, n) VALUES (?, ?)"


class Listing:
    """Looks keys up by all that leads to them; each facet is counted once."""

    def __init__(self) -> None:
        self._counted: set[int] | None = set()

    @classmethod
    def without_numbers(cls) -> Listing:
        """Return one that takes the number of keys in each facet for right."""
        found = cls()
        found._counted = None
        return found

    def leads_to(self, connection: sqlite3.Connection, key_id: KeyId) -> bool:
        """
        Return whether all that should leads to a key.

        Where its entry makes no sense, nothing should.
        """
        row = find_row(connection, BY_ID, key_id)
        entry = _readable(row) if row is not None else None
        if row is None or entry is None:
            return True
        return (
            _has_its_name(connection, row[1], claimed(entry))
            and all(
                connection.execute(_OPERATION, (operation_id,)).fetchone() == (row[0],)
                for operation_id in entry.operations
            )
            and places.hold(connection, entry, self._counted)
        )


def unlisted_keys(connection: sqlite3.Connection) -> set[KeyId]:
    """Return the keys to which something of their own does not lead that should."""
    listing, found, last = Listing.without_numbers(), set[KeyId](), -(2**63)
    while rows := connection.execute(NUMBERED, (last, _ROWS_AT_ONCE)).fetchall():
        last = rows[-1][0]
        for _, key_id in rows:
            if is_key_id(key_id) and not listing.leads_to(connection, KeyId(key_id)):
                found.add(KeyId(key_id))
    return found


def list_anew(connection: sqlite3.Connection, first: IndexEntry) -> None:
    """
    Put all keys into their places again, as their entries say.

    Args:
        connection: Within a transaction.

        first: Has its name and operations before all others.
    """
    for table in ("places", "facets", "operations"):
        connection.execute(f"DELETE FROM {table}")  # noqa: S608 (our own names)
    connection.execute("UPDATE keys SET claim = NULL")
    row = find_row(connection, BY_ID, first.key_id)
    if row is not None:
        _enter(connection, row[0], first)
    last = -(2**63)
    while rows := connection.execute(BEHIND, (last, _ROWS_AT_ONCE)).fetchall():
        last = rows[-1][0]
        for row in rows:
            entry = _readable(row)
            if entry is not None and entry.key_id != first.key_id:
                _enter(connection, row[0], entry)


def _enter(connection: sqlite3.Connection, number: int, entry: IndexEntry) -> None:
    name = claimed(entry)
    connection.execute(_CLAIM, (name, number, name))
    connection.executemany(_REMEMBER, [(each, number) for each in entry.operations])
    places.move(connection, None, entry)


def _has_its_name(
    connection: sqlite3.Connection, claim: object, name: str | None
) -> bool:
    if claim == name:
        return True
    # Another that says that it has this name, too, may have had it before.
    holder = find_row(connection, BY_CLAIM, name) if name else None
    other = _readable(holder) if holder is not None else None
    return claim is None and other is not None and claimed(other) == name


def _readable(row: Row) -> IndexEntry | None:
    if not is_listed(row):
        return None
    try:
        return read_entry(row)
    except KeyTamperedError:
        return None
