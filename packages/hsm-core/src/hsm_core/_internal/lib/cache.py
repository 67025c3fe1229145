# SPDX-License-Identifier: MIT
"""Bounded cache, and recent events."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Final, Generic, TypeVar

from hsm_core.operations import KeyCacheStatus
from hsm_core.protocols import Clock

K = TypeVar("K")
V = TypeVar("V")


class _Entry(Generic[V]):
    __slots__ = ("value", "was_used")

    def __init__(self, value: V) -> None:
        self.value = value
        self.was_used = False


class BoundedCache(Generic[K, V]):
    """
    Cache that evicts what was not used since it was last considered. Thread-safe.

    Use is noted without a lock, so its statistics may miss some of many threads.

    Args:
        limit: How many entries to keep, from 1.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items: OrderedDict[K, _Entry[V]] = OrderedDict()
        self._lock = threading.Lock()
        self._hits = self._misses = self._stores = 0

    @property
    def counts(self) -> KeyCacheStatus:
        """Statistics so far."""
        with self._lock:
            return KeyCacheStatus(
                hits=self._hits, misses=self._misses, stores=self._stores
            )

    def get(self, key: K) -> V | None:
        """Return the value of *key*, or None."""
        entry = self._items.get(key)
        if entry is None:
            self._misses += 1
            return None
        self._hits += 1
        entry.was_used = True
        return entry.value

    def get_all(self, keys: Sequence[K]) -> list[V | None]:
        """Return the value of each key, or None."""
        return [self.get(key) for key in keys]

    def put(self, key: K, value: V) -> None:
        """Insert *value*, and evict entries beyond the limit."""
        with self._lock:
            self._stores += 1
            newest = self._items[key] = _Entry(value)
            self._items.move_to_end(key)
            while len(self._items) > self._limit:
                oldest, entry = self._items.popitem(last=False)
                if entry.was_used or entry is newest:
                    entry.was_used = False
                    self._items[oldest] = entry

    def drop(self, key: K) -> None:
        """Remove the entry of *key*."""
        with self._lock:
            self._items.pop(key, None)

    def keys(self) -> list[K]:
        """Return the keys of all entries."""
        with self._lock:
            return list(self._items)

    def drop_where(self, unwanted: Callable[[K], bool]) -> None:
        """Remove the entries of all keys that a function names."""
        with self._lock:
            for key in list(filter(unwanted, self._items)):
                del self._items[key]


_SECONDS: Final = 10.0


class RecentEvent:
    """
    Remembers an event for 10 s. Thread-safe.

    Args:
        clock: Time.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until = float("-inf")

    def note(self) -> None:
        """Note the event."""
        self._until = self._clock.monotonic() + _SECONDS

    def forget(self) -> None:
        """Clear the event."""
        self._until = float("-inf")

    def __bool__(self) -> bool:
        return self._clock.monotonic() < self._until
