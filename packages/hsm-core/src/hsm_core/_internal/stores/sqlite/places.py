# SPDX-License-Identifier: MIT
"""
Keys in order under everything that a listing can be narrowed to.

A facet is a tag or none, an algorithm or any, a state or any but destroyed. Each knows
how many keys it has and has them in order, so a page costs the same with ten keys and
with a million. With several tags the keys of the rarest of them are walked, with a
scope or a search all that are left.
"""

from __future__ import annotations

import sqlite3
from functools import cache, lru_cache
from itertools import pairwise
from operator import itemgetter
from typing import Final, TypeAlias

from hsm_core._internal.keyring.documents import is_key_id
from hsm_core._internal.stores.index_rows import Row, read_listed
from hsm_core.errors import IntegrityError, InvalidInputError
from hsm_core.model import KeyFilter, KeyId, KeyState
from hsm_core.protocols import IndexEntry, IndexPage, IndexQuery

_Facet: TypeAlias = tuple[str, str, str]
_Position: TypeAlias = tuple[int, bytes]
_INTEGER_LIMIT: Final = 2**63
_PACKED_BYTES: Final = 16
_GROUPS: Final = (0, 8, 12, 16, 20, 32)
_PLACES_REMEMBERED: Final = 8192

_ENTER: Final = (
    "INSERT INTO facets (tag, algorithm, state, number) VALUES (?, ?, ?, 1) "
    "ON CONFLICT (tag, algorithm, state) DO UPDATE SET number = number + 1 "
    "RETURNING id"
)
_LEAVE: Final = "UPDATE facets SET number = number - 1 WHERE id = ?"
_FORGET: Final = "DELETE FROM facets WHERE id = ? AND number <= 0"
_PUT: Final = (
    "INSERT OR IGNORE INTO places (facet, created_at, key_id) VALUES (?, ?, ?)"
)
_TAKE: Final = "DELETE FROM places WHERE facet = ? AND created_at = ? AND key_id = ?"
_FACET: Final = (
    "SELECT id, number FROM facets WHERE tag = ? AND algorithm = ? AND state = ?"
)
_SELECT: Final = "SELECT created_at, key_id FROM places AS p WHERE facet = ?"
_COUNT: Final = "SELECT count(*) FROM places AS p WHERE facet = ?"
_ALSO: Final = (
    " AND EXISTS (SELECT 1 FROM places AS q WHERE q.facet = ? "
    "AND q.created_at = p.created_at AND q.key_id = p.key_id)"
)
_HOLDS: Final = "SELECT 1 FROM places WHERE facet = ? AND created_at = ? AND key_id = ?"
_WALK: Final = (
    "SELECT p.created_at, p.key_id, k.key_id, k.name, k.algorithm, k.tags, k.owner, "
    "k.usages "
    "FROM places AS p JOIN keys AS k ON k.key_id = lower("
    "hex(substr(p.key_id, 1, 4)) || '-' || hex(substr(p.key_id, 5, 2)) || '-' || "
    "hex(substr(p.key_id, 7, 2)) || '-' || hex(substr(p.key_id, 9, 2)) || '-' || "
    "hex(substr(p.key_id, 11, 6))) WHERE p.facet = ?"
)
_SEARCH: Final = (
    " AND (instr(lower(k.name), ?) OR instr(lower(k.owner), ?) "
    "OR instr(lower(k.tags), ?) OR instr(k.key_id, ?) = 1)"
)
_IN_ORDER: Final = " ORDER BY p.created_at DESC, p.key_id DESC"
_BEHIND: Final = " AND (created_at, key_id) < (?, ?)"
_NEWEST: Final = " ORDER BY created_at DESC, key_id DESC LIMIT ? OFFSET ?"
_OLDEST: Final = " ORDER BY created_at, key_id LIMIT ? OFFSET ?"


def _pack(key_id: str) -> bytes:
    return bytes.fromhex(key_id.replace("-", ""))


def _places_of(entry: IndexEntry | None) -> set[tuple[_Facet, _Position]]:
    if entry is None:
        return set()
    algorithm, state = entry.algorithm, entry.state
    narrowings = {("", state), (algorithm, state)} if algorithm and state else set()
    if state != KeyState.DESTROYED:
        narrowings |= {("", ""), (algorithm, "")}
    position = entry.created_at, _pack(entry.key_id)
    return {
        ((tag, *narrowing), position)
        for tag in ("", *entry.tags)
        for narrowing in narrowings
    }


def move(
    connection: sqlite3.Connection, before: IndexEntry | None, after: IndexEntry | None
) -> None:
    """
    Put a key into its places; within a transaction.

    Args:
        connection: Where.

        before: Its entry until now, or None for a new key.

        after: Its entry from now on, or None to take it away.
    """
    old, new = _places_of(before), _places_of(after)
    for facet, position in old - new:
        found = connection.execute(_FACET, facet).fetchone()
        if found and connection.execute(_TAKE, (found[0], *position)).rowcount:
            _leave(connection, found[0])
    for facet, position in new - old:
        number: int = connection.execute(_ENTER, facet).fetchone()[0]
        if not connection.execute(_PUT, (number, *position)).rowcount:
            _leave(connection, number)


def _leave(connection: sqlite3.Connection, facet: int) -> None:
    connection.execute(_LEAVE, (facet,))
    connection.execute(_FORGET, (facet,))


def remove_everywhere(connection: sqlite3.Connection, key_id: KeyId) -> None:
    """Take a key away though nobody knows its entry: every place is looked at."""
    packed = _pack(key_id)
    found = connection.execute("SELECT facet FROM places WHERE key_id = ?", (packed,))
    for (facet,) in found.fetchall():
        _leave(connection, facet)
    connection.execute("DELETE FROM places WHERE key_id = ?", (packed,))


def hold(
    connection: sqlite3.Connection, entry: IndexEntry, counted: set[int] | None
) -> bool:
    """
    Return whether a key is in all its places, and the numbers of these are right.

    Args:
        connection: Where.

        entry: Of the key.

        counted: Facets whose numbers are right; added to. None takes all for right.
    """
    for facet, position in _places_of(entry):
        found = connection.execute(_FACET, facet).fetchone()
        if (
            not found
            or not connection.execute(_HOLDS, (found[0], *position)).fetchone()
        ):
            return False
        if counted is not None and found[0] not in counted:
            if connection.execute(_COUNT, found[:1]).fetchone() != found[1:]:
                return False
            counted.add(found[0])
    return True


def find_page(connection: sqlite3.Connection, query: IndexQuery) -> IndexPage:
    """
    Return a page, newest key first.

    Raises:
        InvalidInputError: What it should begin after is no place of a key.
        IntegrityError: The index holds what we don't write.
    """
    facets = _facets(connection, query.filter)
    if facets is None:
        return IndexPage(keys=(), total=0)
    if query.is_walk:
        return _walk(connection, query, [facet for facet, _ in facets])
    facets.sort(key=itemgetter(1))  # The rarest is walked.
    values: list[object] = [facet for facet, _ in facets]
    total, others = facets[0][1], len(facets) - 1
    if others:
        counting = _COUNT + _ALSO * others
        total = connection.execute(counting, values).fetchone()[0]
    first, number = query.offset, query.limit
    is_newest = query.after is not None or first <= total // 2
    if query.after is not None:
        values += _position(*query.after)
    elif not is_newest:
        # From the other end it is nearer.
        last = total - first
        first = max(0, last - number)
        number = last - first
    if number <= 0 or first >= _INTEGER_LIMIT:
        return IndexPage(keys=(), total=total)
    statement = _statement(
        others, is_behind=query.after is not None, is_newest=is_newest
    )
    rows = connection.execute(statement, (*values, number, first)).fetchall()
    if not is_newest:
        rows.reverse()
    return IndexPage(keys=tuple(map(_unpack, rows)), total=total)


@cache
def _statement(others: int, *, is_behind: bool, is_newest: bool) -> str:
    """Return the statement of a page; the driver finds it again by its object."""
    return (
        _SELECT
        + _ALSO * others
        + (_BEHIND if is_behind else "")
        + (_NEWEST if is_newest else _OLDEST)
    )


def _walk(
    connection: sqlite3.Connection, query: IndexQuery, facets: list[int]
) -> IndexPage:
    """Return a page of the keys that a query shows; all that are left are looked at."""
    if query.scope.is_nothing:
        return IndexPage(keys=(), total=0)
    condition = _WALK + _ALSO * (len(facets) - 1)
    values: list[object] = [*facets]
    if query.filter.search:
        condition += _SEARCH
        values += [query.filter.search.encode().lower().decode()] * 4
    rows = connection.execute(condition + _IN_ORDER, values)
    shown = [row[:2] for row in rows if query.shows(read_listed(row[2:]))]
    total = len(shown)
    if query.after is not None:
        after = _position(*query.after)
        shown = [row for row in shown if row < after]
    page = shown[query.offset : query.offset + query.limit]
    return IndexPage(keys=tuple(map(_unpack, page)), total=total)


def _facets(
    connection: sqlite3.Connection, wanted: KeyFilter
) -> list[tuple[int, int]] | None:
    algorithm = wanted.algorithm.value if wanted.algorithm else ""
    state = wanted.state.value if wanted.state else ""
    facets = []
    for tag in set(wanted.tags) or ("",):
        found = connection.execute(_FACET, (tag, algorithm, state)).fetchone()
        if found is None or (wanted.tags and not tag):
            return None
        if type(found[1]) is not int:
            raise IntegrityError("The index of the key store was tampered with.")
        facets.append((found[0], found[1]))
    return facets


def _position(created_at: int, key_id: str) -> _Position:
    if not is_key_id(key_id) or not abs(created_at) < _INTEGER_LIMIT:
        raise InvalidInputError("after is not a valid page position.")
    return created_at, _pack(key_id)


@lru_cache(_PLACES_REMEMBERED)
def _unpack(row: Row) -> tuple[int, KeyId]:
    """Return the place of a key; one that is shown again is one object."""
    created_at, packed = row
    is_packed = isinstance(packed, bytes) and len(packed) == _PACKED_BYTES
    if type(created_at) is not int or not is_packed:
        raise IntegrityError("The index of the key store was tampered with.")
    digits = packed.hex()
    return created_at, KeyId("-".join(digits[at:end] for at, end in pairwise(_GROUPS)))
