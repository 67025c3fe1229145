# SPDX-License-Identifier: MIT
"""Bounded table of per-client state that clients cannot grow."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Generic, TypeVar

T = TypeVar("T")

_SHARED: Final = 64
_LOOKS: Final = 2


class BoundedTable(Generic[T]):
    """
    Bounded table that never evicts to the client's advantage.

    Only entries equal to a new one are removed: otherwise an attacker could reset a
    limit by using many names. When the table is full, new clients share a few entries
    by a keyed hash that differs in every process, so a flood does not affect known
    clients. A shared entry stays until it equals a new one.

    Args:
        most: Maximum number of individual entries.

        new: Creates a new entry.

        is_nothing: Returns whether an entry equals a new one at an instant.
    """

    def __init__(
        self,
        most: int,
        new: Callable[[], T],
        is_nothing: Callable[[T, float], bool],
    ) -> None:
        self._most = most
        self._new = new
        self._is_nothing = is_nothing
        self._known: OrderedDict[str, T] = OrderedDict()
        self._shared = [new() for _ in range(_SHARED)]

    def __len__(self) -> int:
        return len(self._known)

    def find(self, key: str) -> T:
        """Return the entry of a client, without creating one."""
        found = self._known.get(key)
        return found if found is not None else self._share(key)

    def place(self, key: str, now: float) -> T:
        """Return the entry of a client; creates one if needed."""
        found = self._known.get(key)
        if found is not None:
            return found
        self._make_room(now)
        shared = self._share(key)
        if len(self._known) >= self._most or not self._is_nothing(shared, now):
            return shared
        made = self._known[key] = self._new()
        return made

    def drop(self, key: str) -> None:
        """Remove the individual entry of a client."""
        self._known.pop(key, None)

    def _share(self, key: str) -> T:
        return self._shared[hash(key) % _SHARED]

    def _make_room(self, now: float) -> None:
        """Check two entries in turn; more would be work for every new client."""
        for _ in range(min(_LOOKS, len(self._known))):
            key, found = self._known.popitem(last=False)
            if not self._is_nothing(found, now):
                self._known[key] = found
