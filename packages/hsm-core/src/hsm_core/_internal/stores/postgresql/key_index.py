# SPDX-License-Identifier: MIT
"""
Index of a key store in the rows of its documents, changed in their transactions.

Listings go through the database's own indexes, and their totals are counted when they
are asked for: a table of numbers would have a row that every change of every node has
to lock. Who edits these rows would hide a key from listings that goes on being used; so
a scan checks that its name and its operations lead to each key.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from hsm_core._internal.keyring.documents import is_key_id
from hsm_core._internal.stores.index_rows import (
    COLUMNS,
    LISTED,
    ROWS_AT_ONCE,
    Row,
    RowEntries,
    has_its_name,
    is_listed,
    read_entry,
    read_listed,
    readable,
    values_of,
)
from hsm_core._internal.stores.keys import claimed
from hsm_core._internal.stores.postgresql.database import ClusterDatabase, NumberedRows
from hsm_core.errors import IntegrityError, InvalidInputError
from hsm_core.model import KeyId, KeyState
from hsm_core.protocols import IndexEntry, IndexPage, IndexQuery, OperationMark

_INTEGER_LIMIT: Final = 2**63
_LISTING_SECONDS: Final = 20.0
_REBUILD_SECONDS: Final = 600.0

# Column and table names are our own; values travel apart from the statements.
_SELECT: Final = f"SELECT n, claim, {COLUMNS} FROM keys "  # noqa: S608
_BY_ID: Final = _SELECT + "WHERE key_id = $1"
_BY_CLAIM: Final = _SELECT + "WHERE claim = $1"
_NUMBERED: Final = "SELECT n, key_id FROM keys WHERE n > $1 ORDER BY n LIMIT $2"
_MARK: Final = "SELECT key_id, aborted FROM operations WHERE operation_id = $1"
_NAMES: Final = COLUMNS.split(", ")
_PUT: Final = (
    f"WITH entry AS (INSERT INTO keys ({COLUMNS}, claim) "  # noqa: S608
    "VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, CASE WHEN EXISTS ("
    "SELECT 1 FROM keys WHERE claim = $12::text AND key_id <> $1) "
    "THEN NULL ELSE $12::text END) ON CONFLICT (key_id) DO UPDATE SET "
    + ", ".join(f"{name} = EXCLUDED.{name}" for name in [*_NAMES[1:], "claim"])
    + "), forgotten AS (DELETE FROM operations "
    "WHERE key_id = $1 AND operation_id <> ALL ($13::text[])) "
    "INSERT INTO operations (operation_id, key_id) SELECT unnest($13::text[]), $1 "
    "ON CONFLICT (operation_id) DO NOTHING"
)
"""Replaces an entry, with its name, and its operations, in one round trip."""
_CLEAR: Final = (
    "UPDATE keys SET created_at = NULL, name = NULL, algorithm = NULL, state = NULL, "
    "tags = NULL, generation = NULL, operations = NULL, digest = NULL, owner = NULL, "
    "usages = NULL, claim = NULL"
)
_LEADING: Final = (
    f"SELECT n, claim, {COLUMNS}, (SELECT array_agg(operation_id) "  # noqa: S608
    "FROM operations AS o WHERE o.key_id = keys.key_id) FROM keys WHERE key_id = $1"
)
"""
An entry, and which operations lead to it, as of one moment.

Another node may change both between two statements.
"""
_TAKE_OPERATIONS: Final = (
    "DELETE FROM operations WHERE operation_id = ANY ($2::text[]) AND key_id <> $1"
)
_TAKE_NAME: Final = "UPDATE keys SET claim = NULL WHERE claim = $2 AND key_id <> $1"

_LIVE: Final = f"state <> '{KeyState.DESTROYED.value}'"
_SEARCH: Final = (
    '(strpos(lower(name COLLATE "C"), {0}) > 0 '
    'OR strpos(lower(owner COLLATE "C"), {0}) > 0 '
    'OR strpos(lower(tags COLLATE "C"), {0}) > 0 OR starts_with(key_id, {0}))'
)


class ClusterKeyRows(RowEntries):
    """
    Index in the database of a cluster: changed in the transaction of the document.

    Args:
        database: Of the cluster.
    """

    def __init__(self, database: ClusterDatabase) -> None:
        super().__init__(NumberedRows(database))
        self._database = database

    def leads_to(self, key_id: KeyId, /) -> bool:
        """Return whether all leads to a key that should by its entry."""
        found = self._database.row(_LEADING, (key_id,))
        entry = readable(found[:-1]) if found is not None else None
        if found is not None and entry is not None:
            has_operations = set(entry.operations) <= set(found[-1] or ())
            if not has_operations or not has_its_name(found[1], entry, self._named):
                self._unlisted.add(key_id)
        return key_id not in self._unlisted

    def _named(self, name: str) -> Row | None:
        return self._database.row(_BY_CLAIM, (name,))

    def key_ids(self) -> Iterator[KeyId]:
        """Return the ids of all keys that have a row, oldest row first."""
        self._unlisted.clear()
        last = -_INTEGER_LIMIT
        while page := self._database.rows(_NUMBERED, (last, ROWS_AT_ONCE)):
            last = page[-1][0]
            for _, key_id in page:
                if is_key_id(key_id):
                    yield KeyId(key_id)

    def entry(self, reference: str, /) -> IndexEntry | None:
        """
        Return the entry of a key by id, or by name if not destroyed.

        Raises:
            KeyTamperedError: What the index has of it makes no sense.
        """
        if not _is_text(reference):
            return None
        found = None
        if is_key_id(reference):
            found = self._database.row(_BY_ID, (reference,))
        if found is None or not is_listed(found):
            found = self._database.row(_BY_CLAIM, (reference,))
        return None if found is None else read_entry(found)

    def find(self, query: IndexQuery, /) -> IndexPage:
        """
        Return a page, newest key first.

        Raises:
            InvalidInputError: What it should begin after is no place of a key.
            IntegrityError: The index holds what we don't write.
        """
        selection = _Selection(query)
        if query.after is not None:
            _check_position(*query.after)
        if selection.is_empty or query.scope.is_nothing:
            return IndexPage(keys=(), total=0)
        if query.is_walk:
            return self._walk(query, selection)
        total = int(self._rows(*selection.count())[0][0])
        if query.limit <= 0 or query.offset >= _INTEGER_LIMIT:
            return IndexPage(keys=(), total=total)
        rows = self._rows(*selection.page(query))
        return IndexPage(keys=_keys_of(rows), total=total)

    def _rows(self, statement: str, values: list[object]) -> list[Row]:
        return self._database.rows(statement, values, patience=_LISTING_SECONDS)

    def _walk(self, query: IndexQuery, selection: _Selection) -> IndexPage:
        """Return a page of the keys that a query shows; all left are looked at."""
        rows = self._rows(*selection.walk())
        shown = [row[:2] for row in rows if query.shows(read_listed(row[1:]))]
        total = len(shown)
        if query.after is not None:
            shown = [row for row in shown if row < query.after]
        page = shown[query.offset : query.offset + query.limit]
        return IndexPage(keys=_keys_of(page), total=total)

    def find_operation(self, operation_id: str, /) -> OperationMark | None:
        """Return where an operation id stands."""
        found = self._database.row(_MARK, (operation_id,))
        if found is None:
            return None
        key_id, aborted = found
        return OperationMark(
            key_id=None if aborted else KeyId(key_id), aborted=bool(aborted)
        )

    def put(self, entry: IndexEntry, /) -> None:
        """
        Add or replace the entry of a key.

        Of two keys that claim one name the first put has it.
        """
        operations = list(entry.operations)
        values = (*values_of(entry), claimed(entry) or None, operations)
        with self._database.transaction(join=True) as connection:
            connection.execute(_PUT.encode(), values)

    def correct(self, entry: IndexEntry, /) -> None:
        """Replace the entry of a key, so that all leads to it that should."""
        with self._database.transaction(join=True) as connection:
            if entry.key_id in self._unlisted:
                operations = list(entry.operations)
                connection.execute(_TAKE_OPERATIONS, (entry.key_id, operations))
                connection.execute(_TAKE_NAME, (entry.key_id, claimed(entry)))
            self.put(entry)
        self._unlisted.discard(entry.key_id)

    def remove(self, key_id: KeyId, /) -> None:
        """Remove a key; what is stored of it stays."""
        with self._database.transaction(join=True) as connection:
            connection.execute("DELETE FROM operations WHERE key_id = $1", (key_id,))
            connection.execute((_CLEAR + " WHERE key_id = $1").encode(), (key_id,))

    def replace(self, entries: Iterable[IndexEntry], /) -> None:
        """Replace all entries by these, of keys that are stored; aborts stay."""
        with self._database.transaction(join=True) as connection:
            with connection.patiently(_REBUILD_SECONDS):
                connection.execute("DELETE FROM operations WHERE NOT aborted")
                connection.execute(_CLEAR)
                for entry in entries:
                    self.put(entry)


class _Selection:
    """
    Keys that a query may show, as a condition.

    Attributes:
        is_empty: Whether nothing can fit.
    """

    def __init__(self, query: IndexQuery) -> None:
        wanted = query.filter
        self._values: list[object] = []
        parts = ["created_at IS NOT NULL"]
        if wanted.state:
            parts.append(f"state = {self._value(wanted.state.value)}")
        else:
            parts.append(_LIVE)
        if wanted.algorithm:
            parts.append(f"algorithm = {self._value(wanted.algorithm.value)}")
        if wanted.tags:
            tags = msgspec.json.encode(sorted(set(wanted.tags))).decode()
            parts.append(f"tags::jsonb @> {self._value(tags)}::jsonb")
        if wanted.search:
            searched = wanted.search.encode().lower().decode()
            parts.append(_SEARCH.format(self._value(searched)))
        self._condition = " AND ".join(parts)
        texts = (*wanted.tags, wanted.search)
        self.is_empty = "" in wanted.tags or not all(map(_is_text, texts))

    def _value(self, value: object) -> str:
        self._values.append(value)
        return f"${len(self._values)}"

    def count(self) -> tuple[str, list[object]]:
        """Return the statement that counts them, and its values."""
        return f"SELECT count(*) FROM keys WHERE {self._condition}", self._values  # noqa: S608

    def page(self, query: IndexQuery) -> tuple[str, list[object]]:
        """Return the statement for a page, and its values."""
        condition, values = self._condition, list(self._values)
        if query.after is not None:
            values += query.after
            condition += (
                f" AND (created_at, key_id) < (${len(values) - 1}, ${len(values)})"
            )
        values += [query.limit, query.offset]
        return (
            f"SELECT created_at, key_id FROM keys WHERE {condition} "  # noqa: S608
            "ORDER BY created_at DESC, key_id DESC "
            f"LIMIT ${len(values) - 1} OFFSET ${len(values)}"
        ), values

    def walk(self) -> tuple[str, list[object]]:
        """Return the statement for all of them, in order, and its values."""
        return (
            f"SELECT created_at, {LISTED} FROM keys WHERE {self._condition} "  # noqa: S608
            "ORDER BY created_at DESC, key_id DESC"
        ), self._values


def _is_text(value: str) -> bool:
    """Return whether the database can hold a text."""
    try:
        return b"\0" not in value.encode()
    except UnicodeEncodeError:
        return False


def _check_position(created_at: int, key_id: str) -> None:
    if not is_key_id(key_id) or not abs(created_at) < _INTEGER_LIMIT:
        raise InvalidInputError("after is not a valid page position.")


def _keys_of(rows: list[Row]) -> tuple[tuple[int, KeyId], ...]:
    if not all(is_key_id(key_id) for _, key_id in rows):
        raise IntegrityError("The index of the key store was tampered with.")
    return tuple([(created_at, KeyId(key_id)) for created_at, key_id in rows])
