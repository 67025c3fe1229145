# SPDX-License-Identifier: MIT
"""A bounded map in memory."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True)
class CacheCounts:
    """How often something was there, was not, and was put there."""

    hits: int
    misses: int
    stores: int


class BoundedCache(Generic[K, V]):
    """
    A map that forgets what was used least lately. Safe for many threads.

    Args:
        limit: How many entries to keep, from 1.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._items: OrderedDict[K, V] = OrderedDict()
        self._lock = threading.Lock()
        self._hits = self._misses = self._stores = 0

    @property
    def counts(self) -> CacheCounts:
        """How much it was of use."""
        with self._lock:
            return CacheCounts(self._hits, self._misses, self._stores)

    def get(self, key: K) -> V | None:
        """Return what is kept under *key*, or None."""
        with self._lock:
            value = self._items.get(key)
            if value is None:
                self._misses += 1
            else:
                self._hits += 1
                self._items.move_to_end(key)
            return value

    def put(self, key: K, value: V) -> None:
        """Keep *value*, and forget the oldest beyond the limit."""
        with self._lock:
            self._stores += 1
            self._items[key] = value
            self._items.move_to_end(key)
            while len(self._items) > self._limit:
                self._items.popitem(last=False)

    def drop(self, key: K) -> None:
        """Forget what is kept under *key*."""
        with self._lock:
            self._items.pop(key, None)
