# SPDX-License-Identifier: MIT
"""
The index of an approval store, in memory: pages without reading a record.

Nothing here is trusted: the facts come from records that nobody has authenticated.
"""

from __future__ import annotations

import heapq
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeAlias

from hsm_core._internal.approvals.records import MAX_RECORD_BYTES
from hsm_core._internal.stores.naming import is_key_id
from hsm_core.errors import (
    GenerationConflictError,
    InputSizeError,
    InvalidInputError,
)
from hsm_core.model import ApprovalState
from hsm_core.protocols import ApprovalChange, ApprovalEntry, ApprovalQuery

_Position: TypeAlias = tuple[int, str]
_Facet: TypeAlias = tuple[str, ...]


def check_approval_change(change: ApprovalChange) -> None:
    """
    Check the id and the size of a change.

    Raises:
        InvalidInputError: It has no such id, generation or size.
    """
    if not is_key_id(change.entry.approval_id):
        raise InvalidInputError(
            "approval_id must be a UUID in lower-case canonical form.",
            field="approval_id",
        )
    if change.entry.generation != change.expected_generation + 1:
        raise InvalidInputError(
            "generation must be the expected one plus 1.", field="generation"
        )
    if len(change.record) > MAX_RECORD_BYTES:
        raise InputSizeError(
            "record", actual=len(change.record), maximum=MAX_RECORD_BYTES
        )


class ApprovalIndex:
    """
    Entries by id and facet. Not thread-safe: callers lock.

    A position is (created_at, approval_id); lists are kept in ascending order of it.
    """

    def __init__(self) -> None:
        self._entries: dict[str, ApprovalEntry] = {}
        self._facets: dict[_Facet, list[_Position]] = {}

    def __contains__(self, approval_id: str) -> bool:
        return approval_id in self._entries

    def approval_ids(self) -> list[str]:
        """Return all ids."""
        return list(self._entries)

    def replace(self, entries: Iterable[ApprovalEntry]) -> None:
        """Replace all entries."""
        self._entries = {entry.approval_id: entry for entry in entries}
        self._facets = {}
        for entry in self._entries.values():
            for facet in _facets_of(entry):
                self._facets.setdefault(facet, []).append(_position(entry))
        for positions in self._facets.values():
            positions.sort()

    def check(self, change: ApprovalChange) -> None:
        """
        Check that a change follows the current entry.

        Raises:
            GenerationConflictError: It does not.
        """
        found = self._entries.get(change.entry.approval_id)
        # One that can't be read has generation 0, and is there nevertheless.
        expected = change.expected_generation or None
        if (None if found is None else found.generation) != expected:
            raise GenerationConflictError(
                "The approval request changed concurrently; try again."
            )

    def put(self, entry: ApprovalEntry) -> None:
        """Add or replace an entry by id."""
        self.remove(entry.approval_id)
        self._entries[entry.approval_id] = entry
        for facet in _facets_of(entry):
            insort(self._facets.setdefault(facet, []), _position(entry))

    def remove(self, approval_id: str) -> None:
        """Remove an entry, if present."""
        entry = self._entries.pop(approval_id, None)
        if entry is None:
            return
        for facet in _facets_of(entry):
            positions = self._facets[facet]
            del positions[bisect_left(positions, _position(entry))]
            if not positions:
                del self._facets[facet]

    def find(self, query: ApprovalQuery) -> list[ApprovalEntry]:
        """Return a page, newest first."""
        lists = [self._below(facet, query.after) for facet in _walked(query)]
        entries = (
            self._entries[approval_id]
            for _, approval_id in heapq.merge(*lists, reverse=True)
        )
        return list(islice((e for e in entries if _fits(e, query)), query.limit))

    def _below(self, facet: _Facet, after: _Position | None) -> Iterator[_Position]:
        positions = self._facets.get(facet, [])
        end = len(positions) if after is None else bisect_left(positions, after)
        return (positions[place] for place in range(end - 1, -1, -1))


def _position(entry: ApprovalEntry) -> _Position:
    return entry.created_at, entry.approval_id


def _facets_of(entry: ApprovalEntry) -> tuple[_Facet, _Facet, _Facet]:
    return (
        ("state", entry.state),
        ("requester", entry.requester, entry.state),
        ("digest", entry.digest),
    )


def _walked(query: ApprovalQuery) -> list[_Facet]:
    # The lists that hold every entry of the answer, and few others.
    if query.digest:
        return [("digest", query.digest)]
    states = query.states or frozenset(ApprovalState)
    if query.requester:
        return [("requester", query.requester, state) for state in states]
    return [("state", state) for state in states]


def _fits(entry: ApprovalEntry, query: ApprovalQuery) -> bool:
    return (not query.states or entry.state in query.states) and (
        query.requester in {"", entry.requester}
    )
