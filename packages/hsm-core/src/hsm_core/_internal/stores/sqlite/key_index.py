# SPDX-License-Identifier: MIT
"""
The index of a key store, in the database: changed in the transaction of the document.

Every function here runs on a connection whose lock its caller holds.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import Final

from hsm_core._internal.stores.sqlite import places
from hsm_core._internal.stores.sqlite.connection import UnreadableValueError, translate
from hsm_core._internal.stores.sqlite.database import Row
from hsm_core._internal.stores.sqlite.key_rows import (
    BY_CLAIM,
    BY_ID,
    INSERT,
    UPDATE,
    claimed,
    is_listed,
    read_entry,
    values_of,
)
from hsm_core.errors import (
    ConflictError,
    GenerationConflictError,
    KeyTamperedError,
    NameTakenError,
    OperationAbortedError,
)
from hsm_core.model import KeyId
from hsm_core.protocols import IndexEntry, KeyChange

_CLEAR: Final = (
    "UPDATE keys SET created_at = NULL, name = NULL, algorithm = NULL, state = NULL, "
    "tags = NULL, generation = NULL, operations = NULL, digest = NULL, owner = NULL, "
    "usages = NULL, claim = NULL "
    "WHERE n = ?1 OR ?1 IS NULL"
)
_OPERATION: Final = "SELECT n FROM operations WHERE operation_id = ?"
_ADD_OPERATION: Final = (
    "INSERT OR IGNORE INTO operations (operation_id, n) VALUES (?, ?)"
)
_DROP_OPERATION: Final = "DELETE FROM operations WHERE operation_id = ? AND n = ?"
_ABORTED: Final = "SELECT 1 FROM aborted WHERE operation_id = ?"
_BARE: Final = (
    "SELECT n, NULL, key_id, 0, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL "
)
_UNREADABLE: Final = {
    BY_ID: _BARE + "FROM keys WHERE key_id = ?",
    BY_CLAIM: _BARE + "FROM keys WHERE claim = ?",
}
"""Of a row with a value that can't be read: what is needed to replace it."""
_PRESENT: Final = "SELECT created_at, generation FROM keys WHERE key_id = ?"


def check(connection: sqlite3.Connection, change: KeyChange) -> None:
    """
    Check that a change may be made.

    Raises:
        OperationAbortedError: The operation id was aborted, or used before.
        GenerationConflictError: The key is not at the expected generation.
        NameTakenError: Another key, not destroyed, has this name.
    """
    operation = (change.operation_id,)
    if connection.execute(_ABORTED, operation).fetchone():
        raise OperationAbortedError
    new, expected = change.entry, change.expected_generation
    present: Row | None = connection.execute(_PRESENT, (new.key_id,)).fetchone()
    if present is not None and present[0] is None:
        present = None
    # A key whose document can't be read has generation 0 here, as one that is not
    # there; it must not be overwritten as if it were new.
    if (present[1] if present else 0) != expected or (present and not expected):
        raise GenerationConflictError
    if connection.execute(_OPERATION, operation).fetchone():
        raise OperationAbortedError("The operation id was already used.")
    if name := claimed(new):
        holder = find_row(connection, BY_CLAIM, name)
        if holder and holder[2] != new.key_id:
            raise NameTakenError


def check_abort(connection: sqlite3.Connection, operation_id: str) -> None:
    """
    Check that an operation id may be marked as aborted.

    Raises:
        ConflictError: It stands in a document: it was committed.
    """
    if connection.execute(_OPERATION, (operation_id,)).fetchone():
        raise ConflictError("The operation was already committed.")


def find_row(connection: sqlite3.Connection, statement: str, value: str) -> Row | None:
    """
    Return the row of `BY_ID` or `BY_CLAIM`, or None.

    One with a value that nobody can read comes with its number and its key alone, which
    is no entry.
    """
    found: Row | None
    try:
        found = connection.execute(statement, (value,)).fetchone()
    except sqlite3.Error as error:
        if not isinstance(translate(error), UnreadableValueError):
            raise
        found = connection.execute(_UNREADABLE[statement], (value,)).fetchone()
    return found


def put(connection: sqlite3.Connection, entry: IndexEntry) -> int:
    """
    Add or replace the entry of a key.

    Of two keys that claim one name the first put has it.

    Returns:
        The number of the key's row.
    """
    found = find_row(connection, BY_ID, entry.key_id)
    before = _entry_before(connection, found) if found else None
    name = claimed(entry)
    if name and (found is None or name != found[1]):
        holder = find_row(connection, BY_CLAIM, name)
        if holder and holder[2] != entry.key_id:
            name = None
    values = (*values_of(entry), name)
    if found is None:
        number = connection.execute(INSERT, values).lastrowid or 0
    else:
        number = found[0]
        connection.execute(UPDATE, (*values, number))
    _move_operations(connection, number, before, entry)
    places.move(connection, before, entry)
    return number


def _entry_before(connection: sqlite3.Connection, row: Row) -> IndexEntry | None:
    if not is_listed(row):
        return None
    try:
        return read_entry(row)
    except KeyTamperedError:
        places.remove_everywhere(connection, KeyId(row[2]))
        connection.execute("DELETE FROM operations WHERE n = ?", (row[0],))
        return None


def _move_operations(
    connection: sqlite3.Connection,
    number: int,
    before: IndexEntry | None,
    after: IndexEntry | None,
) -> None:
    old = frozenset(before.operations) if before else frozenset()
    new = frozenset(after.operations) if after else frozenset()
    for operation_id in old - new:
        connection.execute(_DROP_OPERATION, (operation_id, number))
    for operation_id in new - old:
        connection.execute(_ADD_OPERATION, (operation_id, number))


def remove(connection: sqlite3.Connection, key_id: KeyId) -> None:
    """Forget the entry of a key; what is stored of it stays."""
    found = find_row(connection, BY_ID, key_id)
    if found is None:
        return
    before = _entry_before(connection, found)
    _move_operations(connection, found[0], before, None)
    places.move(connection, before, None)
    connection.execute(_CLEAR, (found[0],))


def replace_all(connection: sqlite3.Connection, entries: Iterable[IndexEntry]) -> None:
    """Forget all entries, and put these, of keys that are stored; aborts stay."""
    for statement in (
        "DELETE FROM places",
        "DELETE FROM facets",
        "DELETE FROM operations",
    ):
        connection.execute(statement)
    connection.execute(_CLEAR, (None,))
    for entry in entries:
        put(connection, entry)
