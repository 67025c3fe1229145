# SPDX-License-Identifier: MIT
"""
Index of a key store in its database: changed in the transaction of the document.

Functions here run on a connection whose lock their caller holds. An edit of these
tables alone would hide a key from listings that goes on being used; so a scan checks
that all leads to a key that should: its name, its operations, its list positions.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Final

from hsm_core._internal.keyring.documents import is_key_id
from hsm_core._internal.stores.index_rows import (
    ROWS_AT_ONCE,
    Row,
    RowEntries,
    has_its_name,
    is_listed,
    read_entry,
    readable,
    values_of,
)
from hsm_core._internal.stores.keys import claimed
from hsm_core._internal.stores.sqlite import places
from hsm_core._internal.stores.sqlite.connection import UnreadableValueError, translate
from hsm_core._internal.stores.sqlite.database import Database
from hsm_core._internal.stores.sqlite.key_rows import (
    BEHIND,
    BY_CLAIM,
    BY_ID,
    INSERT,
    NUMBERED,
    UPDATE,
)
from hsm_core.errors import KeyTamperedError
from hsm_core.model import KeyId
from hsm_core.protocols import IndexEntry, IndexPage, IndexQuery, OperationMark

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
_MARK: Final = (
    "SELECT k.key_id FROM operations AS o JOIN keys AS k ON k.n = o.n "
    "WHERE o.operation_id = ?"
)
# A value with other characters is not one of ours, and may not be text.
_READABLE_DIGESTS: Final = (
    "SELECT key_id, generation, iif(digest GLOB '*[^0-9a-f]*', NULL, digest) FROM keys "
    "WHERE key_id > ? AND key_id < ? AND created_at NOT NULL "
    "AND key_id NOT GLOB '*[^0-9a-f-]*' ORDER BY key_id LIMIT ?"
)
_CLAIM: Final = (
    "UPDATE keys SET claim = ? WHERE n = ? "
    "AND NOT EXISTS (SELECT 1 FROM keys WHERE claim = ?)"
)


class KeyRows(RowEntries):
    """
    Index in the database of a key store: changed in the transaction of the document.

    Args:
        database: Of an open key store.
    """

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self._database = database
        self._listing = Listing()

    def leads_to(self, key_id: KeyId, /) -> bool:
        """Return whether all leads to a key that should by its entry."""
        with self._database.reading() as connection:
            if not self._listing.leads_to(connection, key_id):
                self._unlisted.add(key_id)
        return key_id not in self._unlisted

    def key_ids(self) -> Iterator[KeyId]:
        """Return the ids of all keys that have a row, oldest row first."""
        self._listing = Listing()
        last = -(2**63)
        while page := self._database.rows(NUMBERED, (last, ROWS_AT_ONCE)):
            last = page[-1][0]
            for _, key_id in page:
                if isinstance(key_id, str) and is_key_id(key_id):
                    yield KeyId(key_id)

    def entry(self, reference: str, /) -> IndexEntry | None:
        """
        Return the entry of a key by id, or by name if not destroyed.

        Raises:
            KeyTamperedError: What the index has of it makes no sense.
        """
        found = None
        try:
            if is_key_id(reference):
                found = self._database.row(BY_ID, (reference,))
            if found is None or not is_listed(found):
                found = self._database.row(BY_CLAIM, (reference,))
        except UnicodeEncodeError:
            return None
        except UnreadableValueError as error:
            raise KeyTamperedError(
                "The index of the key store was tampered with."
            ) from error
        return None if found is None else read_entry(found)

    def find(self, query: IndexQuery, /) -> IndexPage:
        """Return a page, newest key first."""
        with self._database.reading() as connection:
            return places.find_page(connection, query)

    def _digests_behind(self, statement: str, values: Row) -> list[Row]:
        try:
            return self._database.rows(statement, values)
        except UnreadableValueError:
            return self._database.rows(_READABLE_DIGESTS, values)

    def find_operation(self, operation_id: str, /) -> OperationMark | None:
        """Return where an operation id stands."""
        found = self._database.row(_MARK, (operation_id,))
        if found is not None:
            return OperationMark(key_id=KeyId(found[0]), aborted=False)
        if self._database.row(_ABORTED, (operation_id,)) is not None:
            return OperationMark(key_id=None, aborted=True)
        return None

    def put(self, entry: IndexEntry, /) -> None:
        """Add or replace the entry of a key."""
        with self._database.transaction(join=True) as connection:
            put(connection, entry)

    def correct(self, entry: IndexEntry, /) -> None:
        """Replace the entry of a key, so that all leads to it that should."""
        with self._database.transaction(join=True) as connection:
            put(connection, entry)
            if entry.key_id in self._unlisted:
                self._list(connection, entry)

    def _list(self, connection: sqlite3.Connection, entry: IndexEntry) -> None:
        if not Listing().leads_to(connection, entry.key_id):
            # A scan still says of each of the others that its rows were false.
            self._unlisted |= unlisted_keys(connection)
            list_anew(connection, entry)
        self._unlisted.discard(entry.key_id)

    def remove(self, key_id: KeyId, /) -> None:
        """Remove a key; what is stored of it stays."""
        with self._database.transaction(join=True) as connection:
            found = find_row(connection, BY_ID, key_id)
            if found is not None:
                before = _entry_before(connection, found)
                _move_operations(connection, found[0], before, None)
                places.move(connection, before, None)
                connection.execute(_CLEAR, (found[0],))

    def replace(self, entries: Iterable[IndexEntry], /) -> None:
        """Replace all entries by these, of keys that are stored; aborts stay."""
        with self._database.transaction(join=True) as connection:
            _forget_places(connection)
            connection.execute(_CLEAR, (None,))
            for entry in entries:
                put(connection, entry)


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
    name = claimed(entry) or None
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


def _forget_places(connection: sqlite3.Connection) -> None:
    for table in ("places", "facets", "operations"):
        connection.execute(f"DELETE FROM {table}")  # noqa: S608 (our own names)


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
        entry = readable(row)
        if row is None or entry is None:
            return True
        return (
            has_its_name(row[1], entry, partial(find_row, connection, BY_CLAIM))
            and all(
                connection.execute(_OPERATION, (operation_id,)).fetchone() == (row[0],)
                for operation_id in entry.operations
            )
            and places.hold(connection, entry, self._counted)
        )


def unlisted_keys(connection: sqlite3.Connection) -> set[KeyId]:
    """Return the keys to which something of their own does not lead that should."""
    listing, found, last = Listing.without_numbers(), set[KeyId](), -(2**63)
    while rows := connection.execute(NUMBERED, (last, ROWS_AT_ONCE)).fetchall():
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
    _forget_places(connection)
    connection.execute("UPDATE keys SET claim = NULL")
    row = find_row(connection, BY_ID, first.key_id)
    if row is not None:
        _enter(connection, row[0], first)
    last = -(2**63)
    while rows := connection.execute(BEHIND, (last, ROWS_AT_ONCE)).fetchall():
        last = rows[-1][0]
        for row in rows:
            entry = readable(row)
            if entry is not None and entry.key_id != first.key_id:
                _enter(connection, row[0], entry)


def _enter(connection: sqlite3.Connection, number: int, entry: IndexEntry) -> None:
    name = claimed(entry) or None
    connection.execute(_CLAIM, (name, number, name))
    connection.executemany(
        _ADD_OPERATION, [(each, number) for each in entry.operations]
    )
    places.move(connection, None, entry)
