# SPDX-License-Identifier: MIT
"""
The index of a key store, in memory: what is answered without reading a document.

Every filter of a listing but tags has a list in order, so a page costs the same with
ten keys and with a million. With tags, the keys of the rarest of them are walked.
Nothing here is trusted: the facts come from documents that nobody has authenticated.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable
from typing import Final, TypeAlias

from hsm_core.errors import (
    ConflictError,
    GenerationConflictError,
    NameTakenError,
    OperationAbortedError,
)
from hsm_core.model import KeyFilter, KeyId, KeyState
from hsm_core.protocols import (
    IndexEntry,
    IndexPage,
    IndexQuery,
    KeyChange,
    KeyDigest,
    OperationMark,
    bucket_of,
)

__all__ = ["KeyIndex"]

_Position: TypeAlias = tuple[int, str]
_Facet: TypeAlias = tuple[str, ...]

_ALL: Final[_Facet] = ()
_LIVE: Final[_Facet] = ("live",)
"""All but destroyed keys: what a listing without a state shows."""


class KeyIndex:
    """
    Entries by id, name, operation and facet. Not safe for threads: callers lock.

    A position is (created_at, key_id); lists are kept in ascending order of it.
    """

    def __init__(self) -> None:
        self._entries: dict[KeyId, IndexEntry] = {}
        self._names: dict[str, KeyId] = {}
        self._operations: dict[str, KeyId] = {}
        self._aborted: set[str] = set()
        self._facets: dict[_Facet, list[_Position]] = {}

    def __contains__(self, key_id: KeyId) -> bool:
        return key_id in self._entries

    def replace(self, entries: Iterable[IndexEntry]) -> None:
        """Forget all entries, and put these; what was aborted stays so."""
        self._entries.clear()
        self._names.clear()
        self._operations.clear()
        self._facets.clear()
        for entry in entries:
            self.put(entry)

    def key_ids(self) -> list[KeyId]:
        """Return the ids of all keys, oldest key first."""
        return [KeyId(key_id) for _, key_id in self._facets.get(_ALL, ())]

    def digests(self, bucket: int | None) -> list[KeyDigest]:
        """Return generation and digest of all keys, or of those of one bucket."""
        return [
            KeyDigest(entry.key_id, entry.generation, entry.digest)
            for entry in self._entries.values()
            if bucket is None or bucket_of(entry.key_id) == bucket
        ]

    def remove(self, key_id: KeyId) -> None:
        """Forget a key."""
        entry = self._entries.pop(key_id, None)
        if entry is None:
            return
        self._withdraw(entry)
        for facet, position in _places_of(entry):
            positions = self._facets[facet]
            del positions[bisect_left(positions, position)]
            if not positions:
                del self._facets[facet]

    def entry(self, reference: str) -> IndexEntry | None:
        """Return the entry of a key by id, or by name if not destroyed."""
        key_id = KeyId(reference)
        if key_id not in self._entries and reference in self._names:
            key_id = self._names[reference]
        return self._entries.get(key_id)

    def find_operation(self, operation_id: str) -> OperationMark | None:
        """Return where an operation id stands."""
        if operation_id in self._operations:
            return OperationMark(key_id=self._operations[operation_id], aborted=False)
        if operation_id in self._aborted:
            return OperationMark(key_id=None, aborted=True)
        return None

    def check(self, change: KeyChange) -> None:
        """
        Check that a change may be made.

        Raises:
            OperationAbortedError: The operation id was aborted, or used before.
            GenerationConflictError: The key is not at the expected generation.
            NameTakenError: Another key, not destroyed, has this name.
        """
        if change.operation_id in self._aborted:
            raise OperationAbortedError
        new = change.entry
        present = self._entries.get(new.key_id)
        # A key whose document can't be read has generation 0 here, as one that is not
        # there; it must not be overwritten as if it were new.
        expected = change.expected_generation
        if (present.generation if present else 0) != expected or (
            present is not None and expected == 0
        ):
            raise GenerationConflictError
        if change.operation_id in self._operations:
            raise OperationAbortedError("The operation id was used before.")
        if self._names.get(_claimed(new), new.key_id) != new.key_id:
            raise NameTakenError

    def check_abort(self, operation_id: str) -> None:
        """
        Check that an operation id may be marked as aborted.

        Raises:
            ConflictError: It stands in a document: it was committed.
        """
        if operation_id in self._operations:
            raise ConflictError("The operation was committed.")

    def abort(self, operation_id: str) -> None:
        """Let no change with this operation id pass any more."""
        self._aborted.add(operation_id)

    def put(self, entry: IndexEntry) -> None:
        """
        Add or replace the entry of a key.

        Of two keys that claim one name the first put has it.
        """
        before = self._entries.get(entry.key_id)
        if before is not None:
            self._withdraw(before)
        self._entries[entry.key_id] = entry
        if name := _claimed(entry):
            self._names.setdefault(name, entry.key_id)
        for operation_id in entry.operations:
            self._operations.setdefault(operation_id, entry.key_id)
        self._sort_in(before, entry)

    def _withdraw(self, entry: IndexEntry) -> None:
        if self._names.get(entry.name) == entry.key_id:
            del self._names[entry.name]
        for operation_id in entry.operations:
            if self._operations.get(operation_id) == entry.key_id:
                del self._operations[operation_id]

    def _sort_in(self, before: IndexEntry | None, after: IndexEntry) -> None:
        # Most changes touch few of the lists, and moving in a list costs its length.
        old = _places_of(before) if before is not None else set()
        new = _places_of(after)
        for facet, position in old - new:
            positions = self._facets[facet]
            del positions[bisect_left(positions, position)]
            if not positions:
                del self._facets[facet]
        for facet, position in new - old:
            insort(self._facets.setdefault(facet, []), position)

    def find(self, query: IndexQuery) -> IndexPage:
        """Return a page, newest key first."""
        positions = self._matching(query.filter)
        end = len(positions)
        if query.after is not None:
            end = bisect_left(positions, query.after)
        last = max(0, end - query.offset)
        page = positions[max(0, last - query.limit) : last]
        return IndexPage(
            keys=tuple(
                (created_at, KeyId(key_id)) for created_at, key_id in page[::-1]
            ),
            total=len(positions),
        )

    def _matching(self, wanted: KeyFilter) -> list[_Position]:
        algorithm = wanted.algorithm.value if wanted.algorithm else ""
        state = wanted.state.value if wanted.state else ""
        first = _narrow(algorithm, state)
        if not wanted.tags:
            return self._facets.get(first, [])
        lists = [self._facets.get(("tag", tag), []) for tag in wanted.tags]
        rarest = min(lists, key=len)
        tags = frozenset(wanted.tags)
        return [
            position
            for position in rarest
            if tags <= (entry := self._entries[KeyId(position[1])]).tags
            and algorithm in ("", entry.algorithm)
            and (state == entry.state if state else _is_live(entry))
        ]


def _claimed(entry: IndexEntry) -> str:
    return "" if entry.state == KeyState.DESTROYED else entry.name


def _is_live(entry: IndexEntry) -> bool:
    return entry.state != KeyState.DESTROYED


def _narrow(algorithm: str, state: str) -> _Facet:
    if algorithm and state:
        return "both", algorithm, state
    if algorithm:
        return "live-algorithm", algorithm
    return ("state", state) if state else _LIVE


def _places_of(entry: IndexEntry) -> set[tuple[_Facet, _Position]]:
    facets = [_ALL, *(("tag", tag) for tag in entry.tags)]
    if _is_live(entry):
        facets.append(_LIVE)
        facets.append(_narrow(entry.algorithm, ""))
    if entry.algorithm and entry.state:
        facets.append(_narrow("", entry.state))
        facets.append(_narrow(entry.algorithm, entry.state))
    position = entry.created_at, entry.key_id
    return {(facet, position) for facet in facets}
