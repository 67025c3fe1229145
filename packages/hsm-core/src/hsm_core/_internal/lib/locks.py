# SPDX-License-Identifier: MIT
"""Named locks, which serialise changes of one key."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager


class Locks:
    """One lock per name, kept while it is held or awaited."""

    def __init__(self) -> None:
        self._locks: weakref.WeakValueDictionary[str, _Lock] = (
            weakref.WeakValueDictionary()
        )
        self._guard = threading.Lock()

    @contextmanager
    def held(self, name: str) -> Iterator[None]:
        """Hold the lock of a name for the duration of a ``with`` block."""
        with self._guard:
            lock = self._locks.get(name)
            if lock is None:
                lock = self._locks[name] = _Lock()
        with lock.lock:
            yield


class _Lock:
    """A lock that can be referenced weakly."""

    __slots__ = ("__weakref__", "lock")

    def __init__(self) -> None:
        self.lock = threading.Lock()
