# SPDX-License-Identifier: MIT
"""Approval store in its own SQLite database: one row per approval."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hsm_core._internal.approvals.records import MAX_RECORD_BYTES
from hsm_core._internal.lib.failpoints import failpoint
from hsm_core._internal.stores.approval_index import check_approval_change
from hsm_core._internal.stores.naming import is_key_id
from hsm_core._internal.stores.sqlite.connection import Schema, UnsettledCommitError
from hsm_core._internal.stores.sqlite.database import Database, Row
from hsm_core.errors import GenerationConflictError, OutcomeUnknownError
from hsm_core.model import ApprovalState
from hsm_core.protocols import (
    ApprovalChange,
    ApprovalEntry,
    ApprovalQuery,
    ApprovalStore,
)

if TYPE_CHECKING:
    import sqlite_utils

_INSERT: Final = (
    "INSERT INTO approvals (approval_id, generation, state, requester, digest, "
    "created_at, closed_at, record) VALUES (?, ?, ?, ?, ?, ?, ?, ?) "
    "ON CONFLICT DO NOTHING"
)
_UPDATE: Final = (
    "UPDATE approvals SET generation = ?2, state = ?3, requester = ?4, digest = ?5, "
    "created_at = ?6, closed_at = ?7, record = ?8 "
    "WHERE approval_id = ?1 AND generation = ?9"
)
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


class SqliteApprovalStore(ApprovalStore):
    """
    Records as rows.

    Args:
        path: The database; it and its directory are made, private, if absent.

    Raises:
        StoreLockedError: Another process has it open.
        UnsafeFileModeError: Other users may reach it.
        ConfigurationError: It is of another kind, or of a newer program.
        IntegrityError: It is damaged, or no database.
        StoreUnavailableError: It can't be made or read.

    Attributes:
        database: Where the rows are, for backups and verification.
    """

    def __init__(self, path: Path) -> None:
        self.database = Database(path, APPROVALS_SCHEMA)

    def __repr__(self) -> str:
        return f"<SqliteApprovalStore {str(self.database.path)!r}>"

    @property
    def available(self) -> bool:
        """Whether it is open, and no write has failed."""
        return self.database.available

    def backup(self, to: Path, before_end: Callable[[], None]) -> None:
        """Copy it, in use, into a new file; see `Database.backup`."""
        self.database.backup(to, before_end)

    def reopen(self) -> None:
        """After a failed write: make durable what is there; see `Database.reopen`."""
        self.database.reopen()

    def get(self, approval_id: str, /) -> bytes | None:
        """
        Return the stored form of an approval, or None if there is none.

        What is no short byte string is empty.
        """
        statement = "SELECT record FROM approvals WHERE approval_id = ?"
        return self.database.stored_bytes(
            statement, (approval_id,), most=MAX_RECORD_BYTES
        )

    def commit(self, change: ApprovalChange, /) -> None:
        """Make one change; see `ApprovalStore.commit`."""
        check_approval_change(change)
        entry = change.entry
        values: list[object] = [
            entry.approval_id,
            entry.generation,
            entry.state.value,
            entry.requester,
            entry.digest,
            entry.created_at,
            entry.closed_at,
            change.record,
        ]
        statement = _INSERT
        if change.expected_generation:
            statement = _UPDATE
            values.append(change.expected_generation)
        failpoint("approvals.before_record")
        with _settling(entry.approval_id), self.database.transaction() as connection:
            if connection.execute(statement, values).rowcount != 1:
                raise GenerationConflictError(
                    "The approval request changed concurrently; try again."
                )
        failpoint("approvals.after_record")

    def find(self, query: ApprovalQuery, /) -> list[ApprovalEntry]:
        """Return a page of the index; rows that can't be ours are shown as pending."""
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
        rows = self.database.rows(statement + _NEWEST, values)
        return [_entry(row) for row in rows]

    def approval_ids(self) -> Sequence[str]:
        """Return all ids; rows with other names are left alone."""
        found = self.database.rows("SELECT approval_id FROM approvals")
        return [name for (name,) in found if isinstance(name, str) and is_key_id(name)]

    def remove(self, approval_ids: Sequence[str], /) -> None:
        """Delete approvals, durably, where they are there."""
        if not approval_ids:
            return
        with (
            _settling(approval_ids[0]),
            self.database.transaction() as connection,
        ):
            connection.executemany(
                "DELETE FROM approvals WHERE approval_id = ?",
                [(approval_id,) for approval_id in approval_ids],
            )

    def close(self) -> None:
        """Close the database and release its lock."""
        self.database.close()


@contextmanager
def _settling(approval_id: str) -> Iterator[None]:
    try:
        yield
    except UnsettledCommitError as error:
        raise OutcomeUnknownError(
            "The outcome of the change is unknown; reopen the store.",
            approval_id=approval_id,
        ) from error


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
