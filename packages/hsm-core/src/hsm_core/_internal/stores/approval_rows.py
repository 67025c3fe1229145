# SPDX-License-Identifier: MIT
"""Rows of approvals, and the columns that answer queries; not trusted."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from hsm_core._internal.keyring.documents import is_key_id
from hsm_core._internal.stores.approvals import ApprovalEntries
from hsm_core._internal.stores.index_rows import Row, Rows
from hsm_core.errors import GenerationConflictError
from hsm_core.model import ApprovalState
from hsm_core.protocols import ApprovalChange, ApprovalEntry, ApprovalQuery


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


class ApprovalColumns(ApprovalEntries):
    """
    Entries as columns of the records' rows.

    Args:
        database: Of an open approval store.

        select: Begins each query: the columns of an entry, with a condition.

        lock: Ends a query for a row that is about to change.
    """

    def __init__(self, database: Rows, select: str, lock: str = "") -> None:
        self._database = database
        self._select = select
        self._lock = lock

    def __contains__(self, approval_id: str, /) -> bool:
        """Return whether there is an approval, whatever lies there."""
        return bool(self._generations(approval_id))

    def _generations(self, approval_id: str, lock: str = "") -> list[Row]:
        statement = "SELECT generation FROM approvals WHERE approval_id = ?"
        return self._database.rows(statement + lock, (approval_id,))

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
        found = self._generations(change.entry.approval_id, self._lock)
        expected = change.expected_generation
        if found != ([(expected,)] if expected else []):
            raise GenerationConflictError(
                "The approval request changed concurrently; try again."
            )

    def find(self, query: ApprovalQuery, /) -> list[ApprovalEntry]:
        """Return a page; rows that can't be ours are shown as pending."""
        pages = [self._page(condition, query) for condition in _conditions(query)]
        # In one statement, or it misses what moves from one state to another meanwhile.
        statement = " UNION ALL ".join(
            f"SELECT * FROM ({page}) AS page"  # noqa: S608 (of this module's words)
            for page, _ in pages
        )
        values = [value for _, own in pages for value in own]
        entries = map(_entry, self._database.rows(statement, values))
        return sorted(entries, key=_position, reverse=True)[: query.limit]

    def _page(
        self, condition: dict[str, str], query: ApprovalQuery
    ) -> tuple[str, list[object]]:
        """Return the statement of the newest that meet a condition, and its values."""
        statement = "".join(
            [self._select, *(f" AND {column} = ?" for column in condition)]
        )
        values: list[object] = list(condition.values())
        if query.after is not None:
            statement += " AND (created_at, approval_id) < (?, ?)"
            values += query.after
        return statement + _NEWEST, [*values, query.limit]

    def replace(self, entries: Iterable[ApprovalEntry], /) -> None:
        """Do nothing, and read nothing: the columns are the entries."""

    def put(self, entry: ApprovalEntry, /) -> None:
        """Do nothing: the columns were written with the record."""

    def remove(self, approval_id: str, /) -> None:
        """Do nothing: the columns were deleted with the record."""


_NEWEST: Final = " ORDER BY created_at DESC, approval_id DESC LIMIT ?"


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
