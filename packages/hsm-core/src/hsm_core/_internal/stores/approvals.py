# SPDX-License-Identifier: MIT
"""
Approval store over a record store, and its index in memory.

The index answers pages without reading a record. Nothing in it is trusted: the facts
come from records that nobody has authenticated.
"""

from __future__ import annotations

import heapq
import threading
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Protocol, TypeAlias

from hsm_core._internal.approvals.records import MAX_RECORD_BYTES, read_entry
from hsm_core._internal.keyring.documents import is_key_id
from hsm_core._internal.lib.failpoints import failpoint
from hsm_core._internal.stores.records import APPROVALS, Records, unknown_outcome
from hsm_core.errors import GenerationConflictError, InputSizeError, InvalidInputError
from hsm_core.model import ApprovalState
from hsm_core.protocols import (
    ApprovalChange,
    ApprovalEntry,
    ApprovalQuery,
    ApprovalStore,
)

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


class RecordApprovalStore(ApprovalStore):
    """
    Approvals as records.

    Args:
        records: Closed with the store.

        index: Its entries; an index in memory is loaded from the records.
    """

    def __init__(self, records: Records, index: ApprovalEntries | None = None) -> None:
        self._records = records
        self._index = ApprovalIndex() if index is None else index
        try:
            self._load()
        except BaseException:
            records.close()
            raise

    def __repr__(self) -> str:
        return f"<{type(self).__name__} in {self._records!r}>"

    def _load(self) -> None:
        self._index.replace(self._entries())

    def _entries(self) -> Iterator[ApprovalEntry]:
        for approval_id in filter(is_key_id, self._records.ids(APPROVALS)):
            yield read_entry(approval_id, self._stored(approval_id) or b"")

    def _stored(self, approval_id: str) -> bytes | None:
        return self._records.stored(APPROVALS + approval_id, MAX_RECORD_BYTES)

    @property
    def available(self) -> bool:
        """Whether it is open, and no write has failed."""
        return self._records.available

    def reopen(self) -> None:
        """After a failed write: make durable what is there, and read it again."""
        self._records.reopen(self._read_again, self._load)

    def _read_again(self, name: str, stored: bytes | None) -> None:
        approval_id = name.removeprefix(APPROVALS)
        if stored is None:
            self._index.remove(approval_id)
        else:
            self._index.put(read_entry(approval_id, stored))

    def get(self, approval_id: str, /) -> bytes | None:
        """
        Return the stored form of an approval, or None if there is none.

        Where one should be and is not, or something else lies there, it is empty.
        """
        self._records.check_usable()
        if approval_id not in self._index:
            return None
        if stored := self._stored(approval_id):
            return stored
        with self._records.writing():
            # It may have been removed while it was looked for.
            known = approval_id in self._index
            return self._stored(approval_id) or b"" if known else None

    def commit(self, change: ApprovalChange, /) -> None:
        """Make one change; see `ApprovalStore.commit`."""
        check_approval_change(change)
        entry = change.entry
        failpoint("approvals.before_record")
        with unknown_outcome(approval_id=entry.approval_id), self._records.writing():
            self._index.check(change)
            self._records.put(
                APPROVALS + entry.approval_id,
                change.record,
                entry=entry,
                made=lambda: self._index.put(entry),
            )
        failpoint("approvals.after_record")

    def find(self, query: ApprovalQuery, /) -> list[ApprovalEntry]:
        """Return a page of the index."""
        self._records.check_usable()
        return self._index.find(query)

    def approval_ids(self) -> Sequence[str]:
        """Return all ids, those of unreadable records too."""
        self._records.check_usable()
        return self._index.approval_ids()

    def remove(self, approval_ids: Sequence[str], /) -> None:
        """Delete approvals, durably, where they are there."""
        if not approval_ids:
            return
        with unknown_outcome(approval_id=approval_ids[0]), self._records.writing():
            names = [
                APPROVALS + found for found in approval_ids if found in self._index
            ]
            self._records.delete(
                names, lambda name: self._index.remove(name.removeprefix(APPROVALS))
            )

    def close(self) -> None:
        """Release the lock, after the commit that is under way."""
        self._records.close()


class ApprovalEntries(Protocol):
    """Index of an approval store: in memory, or columns of a database."""

    def __contains__(self, approval_id: str, /) -> bool:
        """Return whether there is an approval, whatever lies there."""
        ...

    def approval_ids(self) -> Sequence[str]:
        """Return all ids."""
        ...

    def check(self, change: ApprovalChange, /) -> None:
        """
        Check that a change follows the current entry.

        Raises:
            GenerationConflictError: It does not.
        """
        ...

    def find(self, query: ApprovalQuery, /) -> list[ApprovalEntry]:
        """Return a page, newest first."""
        ...

    def replace(self, entries: Iterable[ApprovalEntry], /) -> None:
        """Replace all entries by those of the records."""
        ...

    def put(self, entry: ApprovalEntry, /) -> None:
        """Add or replace an entry by id."""
        ...

    def remove(self, approval_id: str, /) -> None:
        """Remove an entry, if present."""
        ...


class ApprovalIndex(ApprovalEntries):
    """
    Entries by id and facet, in memory. Thread-safe.

    A position is (created_at, approval_id); lists are kept in ascending order of it.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._entries: dict[str, ApprovalEntry] = {}
        self._facets: dict[_Facet, list[_Position]] = {}

    def __contains__(self, approval_id: str) -> bool:
        return approval_id in self._entries

    def approval_ids(self) -> list[str]:
        """Return all ids."""
        with self._lock:
            return list(self._entries)

    def replace(self, entries: Iterable[ApprovalEntry]) -> None:
        """Replace all entries."""
        found = {entry.approval_id: entry for entry in entries}
        facets: dict[_Facet, list[_Position]] = {}
        for entry in found.values():
            for facet in _facets_of(entry):
                facets.setdefault(facet, []).append(_position(entry))
        for positions in facets.values():
            positions.sort()
        with self._lock:
            self._entries, self._facets = found, facets

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
        with self._lock:
            self.remove(entry.approval_id)
            self._entries[entry.approval_id] = entry
            for facet in _facets_of(entry):
                insort(self._facets.setdefault(facet, []), _position(entry))

    def remove(self, approval_id: str) -> None:
        """Remove an entry, if present."""
        with self._lock:
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
        with self._lock:
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
