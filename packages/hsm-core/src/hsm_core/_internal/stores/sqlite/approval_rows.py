# SPDX-License-Identifier: MIT
"""Rows of approvals, and the columns that answer queries; not trusted."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Final

from hsm_core._internal.keyring.documents import is_key_id
from hsm_core._internal.stores.approvals import ApprovalEntries
from hsm_core._internal.stores.sqlite.connection import Schema
from hsm_core._internal.stores.sqlite.database import Database, Row
from hsm_core.errors import GenerationConflictError
from hsm_core.model import ApprovalState
from hsm_core.protocols import (
    ApprovalChange,
    ApprovalEntry,
    ApprovalQuery,
)

if TYPE_CHECKING:
    import sqlite_utils

PUT_APPROVAL: Final = (
    "INSERT INTO approvals (approval_id, generation, state, requester, digest, "
    "created_at, closed_at, record) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) "
    "ON CONFLICT (approval_id) DO UPDATE SET generation = ?2, state = ?3, "
    "requester = ?4, digest = ?5, created_at = ?6, closed_at = ?7, record = ?8"
)
"""Creates or replaces a row: `values_of` its entry, and its record."""
_SELECT: Final = (
    "SELECT approval_id, generation, state, requester, digest, created_at, closed_at "
    "FROM approvals WHERE typeof(created_at) = 'integer'"
)
_NEWEST: Final = " ORDER BY created_at DESC, approval_id DESC LIMIT ?"

_INDEXES: Final = {
    "approvals_state": "state, created_at, approval_id",
    "approvals_requester": "requester, state, created_at, approval_id",
    "approvals_digest": "digest, created_at, approval_id",
    "approvals_order": "created_at, approval_id",
}


def _first(tables: sqlite_utils.Database) -> None:
    tables.execute(
        "CREATE TABLE approvals (n INTEGER PRIMARY KEY, "
        "approval_id TEXT NOT NULL UNIQUE, generation INTEGER NOT NULL, "
        "state TEXT NOT NULL, requester TEXT NOT NULL, digest TEXT NOT NULL, "
        "created_at INTEGER NOT NULL, closed_at INTEGER NOT NULL, "
        "record BLOB NOT NULL) STRICT"
    )
    for name, columns in _INDEXES.items():
        tables.execute(f"CREATE INDEX {name} ON approvals ({columns})")


APPROVALS_SCHEMA: Final = Schema(application_id=0x46484150, steps=(_first,))
"""Approvals: ``FHAP``."""


def values_of(entry: ApprovalEntry) -> tuple[object, ...]:
    """Return what `PUT_APPROVAL` begins with."""
    return (
        entry.approval_id,
        entry.generation,
        entry.state.value,
        entry.requester,
        entry.digest,
        entry.created_at,
        entry.closed_at,
    )


class ApprovalRows(ApprovalEntries):
    """
    Entries as columns of the records' rows.

    Args:
        database: Of an open approval store.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def __contains__(self, approval_id: str, /) -> bool:
        """Return whether there is an approval, whatever lies there."""
        return self._generation(approval_id) is not None

    def _generation(self, approval_id: str) -> Row | None:
        statement = "SELECT generation FROM approvals WHERE approval_id = ?"
        return self._database.row(statement, (approval_id,))

    def approval_ids(self) -> Sequence[str]:
        """Return all ids; rows with other names are left alone."""
        found = self._database.rows("SELECT approval_id FROM approvals")
        return [name for (name,) in found if isinstance(name, str) and is_key_id(name)]

    def check(self, change: ApprovalChange, /) -> None:
        """
        Check that a change follows the current entry.

        Raises:
            GenerationConflictError: It does not.
        """
        found = self._generation(change.entry.approval_id)
        expected = change.expected_generation
        if found != ((expected,) if expected else None):
            raise GenerationConflictError(
                "The approval request changed concurrently; try again."
            )

    def find(self, query: ApprovalQuery, /) -> list[ApprovalEntry]:
        """Return a page; rows that can't be ours are shown as pending."""
        lists = [self._page(condition, query) for condition in _conditions(query)]
        merged = heapq.merge(*lists, key=_position, reverse=True)
        return list(islice(merged, query.limit))

    def _page(
        self, condition: dict[str, str], query: ApprovalQuery
    ) -> list[ApprovalEntry]:
        statement = "".join([_SELECT, *(f" AND {column} = ?" for column in condition)])
        values: list[object] = list(condition.values())
        if query.after is not None:
            statement += " AND (created_at, approval_id) < (?, ?)"
            values += query.after
        values.append(query.limit)
        rows = self._database.rows(statement + _NEWEST, values)
        return [_entry(row) for row in rows]

    def replace(self, entries: Iterable[ApprovalEntry], /) -> None:
        """Do nothing, and read nothing: the columns are the entries."""

    def put(self, entry: ApprovalEntry, /) -> None:
        """Do nothing: the columns were written with the record."""

    def remove(self, approval_id: str, /) -> None:
        """Do nothing: the columns were deleted with the record."""


def _conditions(query: ApprovalQuery) -> list[dict[str, str]]:
    # Each is answered in order by one of the indexes, without a sort.
    equal = {
        column: value
        for column, value in (("requester", query.requester), ("digest", query.digest))
        if value
    }
    states = query.states
    if query.requester and not query.digest:
        states = states or frozenset(ApprovalState)
    return [equal | {"state": state.value} for state in states] or [equal]


def _position(entry: ApprovalEntry) -> tuple[int, str]:
    return entry.created_at, entry.approval_id


def _entry(row: Row) -> ApprovalEntry:
    approval_id, generation, state, requester, digest, created_at, closed_at = row
    kinds = (str, int, str, str, str, int, int)
    is_ours = all(type(value) is kind for value, kind in zip(row, kinds, strict=True))
    if is_ours and state in frozenset(ApprovalState):
        return ApprovalEntry(
            approval_id=approval_id,
            generation=generation,
            state=ApprovalState(state),
            requester=requester,
            digest=digest,
            created_at=created_at,
            closed_at=closed_at,
        )
    # It keeps its place in the order, so that paging continues.
    return ApprovalEntry(
        approval_id=str(approval_id),
        generation=0,
        state=ApprovalState.PENDING,
        requester="",
        digest="",
        created_at=created_at,
    )
