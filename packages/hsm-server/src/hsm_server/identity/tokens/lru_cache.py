# SPDX-License-Identifier: MIT
"""Bounded cache of recent results."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Generic, TypeVar

T = TypeVar("T")


class LRUCache(Generic[T]):
    """
    Least-recently-used cache; thread-safe.

    Args:
        most: Maximum number of entries.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._found: OrderedDict[bytes, T] = OrderedDict()

    def __len__(self) -> int:
        return len(self._found)

    def get(self, key: bytes) -> T | None:
        """Return the cached result, or None."""
        with self._lock:
            found = self._found.get(key)
            if found is not None:
                self._found.move_to_end(key)
            return found

    def put(self, key: bytes, found: T) -> None:
        """Remember something."""
        with self._lock:
            self._found[key] = found
            while len(self._found) > self._most:
                self._found.popitem(last=False)

    def drop(self, key: bytes) -> None:
        """Forget something."""
        with self._lock:
            self._found.pop(key, None)
