# SPDX-License-Identifier: MIT
"""
Index of a key store in memory: answers queries without reading documents.

Every filter of a listing but tags has a list in order, so a page costs the same with
ten keys and with a million. With tags, the keys of the rarest of them are walked.
With a scope or a search, all that are left are walked.
Nothing here is trusted: the facts come from documents that nobody has authenticated.
"""

from __future__ import annotations

import gc
import threading
from bisect import bisect_left, insort
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import wraps
from operator import attrgetter
from typing import Concatenate, Final, ParamSpec, TypeAlias, TypeVar

from hsm_core._internal.keyring.names import Claims
from hsm_core._internal.stores.keys import KeyEntries, claimed
from hsm_core.model import KeyFilter, KeyId, KeyState
from hsm_core.protocols import (
    IndexEntry,
    IndexPage,
    IndexQuery,
    KeyDigest,
    OperationMark,
    bucket_of,
)

_Position: TypeAlias = tuple[int, str]
_Facet: TypeAlias = tuple[str, ...]

_ALL: Final[_Facet] = ()
_LIVE: Final[_Facet] = ("live",)
"""Default states of a listing: all but destroyed."""

P = ParamSpec("P")
R = TypeVar("R")


def _locked(
    method: Callable[Concatenate[KeyIndex, P], R],
) -> Callable[Concatenate[KeyIndex, P], R]:
    @wraps(method)
    def call(self: KeyIndex, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with self._lock:
            return method(self, *args, **kwargs)

    return call


class KeyIndex(KeyEntries):
    """
    Entries by id, name, operation and facet. Thread-safe.

    A position is (created_at, key_id); lists are kept in ascending order of it.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._entries: dict[KeyId, IndexEntry] = {}
        self._buckets: dict[int, list[KeyId]] = {}
        self._names = Claims()
        self._operations = Claims()
        self._aborted: set[str] = set()
        self._facets: dict[_Facet, list[_Position]] = {}

    def knows(self, key_id: KeyId) -> bool:
        """Return whether a key has an entry."""
        return key_id in self._entries

    def leads_to(self, key_id: KeyId) -> bool:
        """Return True: what leads to a key is made of its entry."""
        return True

    def rebuild(self, entries: Iterable[IndexEntry]) -> None:
        """Replace all entries; the oldest key comes first."""
        with collector_paused():
            KeyIndex.replace(
                self, sorted(entries, key=attrgetter("created_at", "key_id"))
            )

    @_locked
    def replace(self, entries: Iterable[IndexEntry]) -> None:
        """
        Replace all entries; aborted operations stay aborted.

        Of two entries of one key the later counts, at the place of the first.
        """
        self._entries.clear()
        self._buckets.clear()
        self._names.clear()
        self._operations.clear()
        self._facets.clear()
        found = self._entries
        for entry in entries:
            found[entry.key_id] = entry
        lists: dict[_Facet, list[list[_Position]]] = {}
        for entry in found.values():
            self._buckets.setdefault(bucket_of(entry.key_id), []).append(entry.key_id)
            self._claim(entry)
            kind = entry.algorithm, entry.state
            if kind not in lists:
                lists[kind] = [
                    self._facets.setdefault(facet, []) for facet in _facets_of(*kind)
                ]
            position = entry.created_at, entry.key_id
            for positions in lists[kind]:
                positions.append(position)
            for tag in entry.tags:
                self._facets.setdefault(("tag", tag), []).append(position)
        # Sorting once takes a fraction of the time of putting each in its place.
        for positions in self._facets.values():
            positions.sort()

    @_locked
    def entries(self) -> list[IndexEntry]:
        """Return all entries, in the order in which their keys came."""
        return list(self._entries.values())

    @_locked
    def key_ids(self) -> list[KeyId]:
        """Return the ids of all keys, oldest key first."""
        return [KeyId(key_id) for _, key_id in self._facets.get(_ALL, ())]

    def digests(self, bucket: int | None) -> Iterator[KeyDigest]:
        """Return generation and digest of all keys, or of those of one bucket."""
        for one in list(self._buckets) if bucket is None else (bucket,):
            yield from self._digests_of(one)

    @_locked
    def _digests_of(self, bucket: int) -> list[KeyDigest]:
        return [
            KeyDigest(key_id, (entry := self._entries[key_id]).generation, entry.digest)
            for key_id in self._buckets.get(bucket, ())
        ]

    @_locked
    def remove(self, key_id: KeyId) -> None:
        """Remove a key."""
        entry = self._entries.pop(key_id, None)
        if entry is None:
            return
        bucket = self._buckets[bucket_of(key_id)]
        bucket.remove(key_id)
        if not bucket:
            del self._buckets[bucket_of(key_id)]
        if name := claimed(entry):
            self._names.release(name, key_id)
        for operation_id in set(entry.operations):
            self._operations.release(operation_id, key_id)
        for facet, position in _places_of(entry):
            self._take_out(facet, position)

    @_locked
    def entry(self, reference: str) -> IndexEntry | None:
        """Return the entry of a key by id, or by name if not destroyed."""
        entry = self._entries.get(KeyId(reference))
        if entry is None:
            holder = self._names.holder(reference)
            return None if holder is None else self._entries[holder]
        return entry

    @_locked
    def find_operation(self, operation_id: str) -> OperationMark | None:
        """Return where an operation id stands."""
        holder = self._operations.holder(operation_id)
        if holder is not None:
            return OperationMark(key_id=holder, aborted=False)
        if operation_id in self._aborted:
            return OperationMark(key_id=None, aborted=True)
        return None

    @_locked
    def generation(self, key_id: KeyId) -> int | None:
        """Return the generation of a key; None if it has no entry."""
        entry = self._entries.get(key_id)
        return None if entry is None else entry.generation

    @_locked
    def holder(self, name: str) -> KeyId | None:
        """Return the key, not destroyed, that has a name."""
        return self._names.holder(name)

    def mark(self, key_id: KeyId) -> None:
        """Do nothing: a change that does not come about leaves nothing here."""

    @_locked
    def abort(self, operation_id: str) -> None:
        """Refuse further changes with this operation id."""
        self._aborted.add(operation_id)

    @_locked
    def put(self, entry: IndexEntry) -> None:
        """
        Add or replace the entry of a key.

        Of several keys that claim one name or operation, the one that has claimed it
        longest without a break has it.
        """
        key_id = entry.key_id
        before = self._entries.get(key_id)
        self._entries[key_id] = entry
        if before is None:
            self._buckets.setdefault(bucket_of(key_id), []).append(key_id)
            self._claim(entry)
        else:
            self._claim_again(before, entry)
        self._sort_in(before, entry)

    def correct(self, entry: IndexEntry) -> None:
        """Replace the entry of a key."""
        self.put(entry)

    def _claim(self, entry: IndexEntry) -> None:
        if name := claimed(entry):
            self._names.claim(name, entry.key_id)
        # A hostile document may name one operation twice.
        for operation_id in dict.fromkeys(entry.operations):
            self._operations.claim(operation_id, entry.key_id)

    def _claim_again(self, before: IndexEntry, after: IndexEntry) -> None:
        key_id, old, new = after.key_id, claimed(before), claimed(after)
        if old != new:
            if old:
                self._names.release(old, key_id)
            if new:
                self._names.claim(new, key_id)
        was, now = set(before.operations), set(after.operations)
        for operation_id in was - now:
            self._operations.release(operation_id, key_id)
        for operation_id in now - was:
            self._operations.claim(operation_id, key_id)

    def _sort_in(self, before: IndexEntry | None, after: IndexEntry) -> None:
        # Most changes touch few of the lists, and moving in a list costs its length.
        old = _places_of(before) if before is not None else set()
        new = _places_of(after)
        for facet, position in old - new:
            self._take_out(facet, position)
        for facet, position in new - old:
            insort(self._facets.setdefault(facet, []), position)

    def _take_out(self, facet: _Facet, position: _Position) -> None:
        positions = self._facets[facet]
        del positions[bisect_left(positions, position)]
        if not positions:
            del self._facets[facet]

    @_locked
    def find(self, query: IndexQuery) -> IndexPage:
        """Return a page, newest key first."""
        positions = self._matching(query.filter)
        if query.is_walk:
            positions = [
                position
                for position in positions
                if query.shows(self._entries[KeyId(position[1])])
            ]
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


@contextmanager
def collector_paused() -> Iterator[None]:
    """
    Pause the garbage collector, which would scan many new objects repeatedly.

    It takes half of the time of loading 100,000 entries.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _is_live(entry: IndexEntry) -> bool:
    return entry.state != KeyState.DESTROYED


def _narrow(algorithm: str, state: str) -> _Facet:
    if algorithm and state:
        return "both", algorithm, state
    if algorithm:
        return "live-algorithm", algorithm
    return ("state", state) if state else _LIVE


def _facets_of(algorithm: str, state: str) -> list[_Facet]:
    facets = [_ALL]
    if state != KeyState.DESTROYED:
        facets.append(_LIVE)
        if algorithm:
            facets.append(_narrow(algorithm, ""))
    if algorithm and state:
        facets += [_narrow("", state), _narrow(algorithm, state)]
    return facets


def _places_of(entry: IndexEntry) -> set[tuple[_Facet, _Position]]:
    facets = _facets_of(entry.algorithm, entry.state)
    facets += [("tag", tag) for tag in entry.tags]
    position = entry.created_at, entry.key_id
    return {(facet, position) for facet in facets}
