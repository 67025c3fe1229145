# SPDX-License-Identifier: MIT
"""
Use account: uses of one key's material, and the reserved block of further uses.

Arithmetic only: callers store a reservation before they adopt it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

from hsm_core._internal.keyring.use_records import UseValue
from hsm_core.algorithms import Algorithm, spec


def _limit_of(algorithm: str) -> int:
    return spec(Algorithm(algorithm)).use_limit


@dataclass(frozen=True, slots=True, kw_only=True)
class UseRules:
    """
    Limits of uses, and sizes of reserved blocks.

    A block doubles each time one is used up: a busy key seldom waits for the disk, and
    a crash adds little to the count of a key that is seldom used.

    Attributes:
        limit_of: Uses that the material of an algorithm has, by its name; 0 for any.
        first_uses: Size of the first block.
        most_uses: Size of the largest one.
        first_bytes: The same for protected bytes.
        most_bytes: The same for protected bytes.
        near_percent: Share of the limit that is worth a warning.
    """

    limit_of: Callable[[str], int] = _limit_of
    first_uses: int = 2**10
    most_uses: int = 2**20
    first_bytes: int = 2**20
    most_bytes: int = 2**30
    near_percent: int = 80


class UseAccount:
    """
    Counts of one material. Thread-safe.

    Args:
        limit: Uses that it has; 0 for any number.

        rules: Sizes of blocks.

    Attributes:
        growing: Held while a block is reserved in the store; never by a mere `take`.
        is_loaded: Whether what is stored has been read.
        is_closed: Whether it accepts no more uses.
        last_used_at: Microseconds since 1970, or 0.
        limit: As given.
        warned: Whether the audit log has the warning near the limit.
    """

    __slots__ = (
        "_ceiling",
        "_lock",
        "_more_bytes",
        "_more_uses",
        "_near",
        "_rules",
        "_size",
        "_stored",
        "_uses",
        "growing",
        "is_closed",
        "is_loaded",
        "last_used_at",
        "limit",
        "warned",
    )

    def __init__(self, limit: int, rules: UseRules) -> None:
        self.limit = limit
        self.growing = threading.Lock()
        self.is_loaded = self.is_closed = self.warned = False
        self.last_used_at = 0
        self._rules = rules
        self._near = -(-limit * rules.near_percent // 100)
        self._lock = threading.Lock()
        self._uses = self._size = self._ceiling = 0
        self._stored = UseValue()
        self._more_uses, self._more_bytes = rules.first_uses, rules.first_bytes

    def take(self, uses: int, size: int, now: int) -> bool:
        """Count a use and return True, or False where nothing is reserved for it."""
        with self._lock:
            total, total_size = self._uses + uses, self._size + size
            if total > self._ceiling or total_size > self._stored.size:
                return False
            self._uses, self._size, self.last_used_at = total, total_size, now
            return True

    def load(self, stored: UseValue) -> None:
        """Start with the stored value: all of it counts as used."""
        with self._lock:
            self._uses, self._size = stored.uses, stored.size
            self.last_used_at = max(self.last_used_at, stored.last_used_at)
            self._settle(stored)
            self.is_loaded = True

    def exceeds(self, uses: int) -> bool:
        """Return whether so many more are over the limit."""
        return bool(self.limit) and self._uses + uses > self.limit

    def comes_near(self, uses: int) -> bool:
        """Return whether so many more cross the share that is worth a warning."""
        near = bool(self.limit) and self._uses + uses >= self._near
        return near and not self.warned

    def enlarged(self, uses: int, size: int, *, warned: bool) -> UseValue:
        """Return the value to store before this much can be taken."""
        with self._lock:
            reserved, reserved_size = self._stored.uses, self._stored.size
            if self._uses + uses > reserved:
                reserved = self._uses + max(uses, self._more_uses)
            if self._size + size > reserved_size:
                reserved_size = self._size + max(size, self._more_bytes)
            if self.limit:
                reserved = min(reserved, self.limit)
            return UseValue(reserved, reserved_size, self.last_used_at, warned)

    def adopt(self, stored: UseValue) -> None:
        """Adopt the stored value as reserved."""
        with self._lock:
            if stored.uses > self._stored.uses:
                self._more_uses = min(2 * self._more_uses, self._rules.most_uses)
            if stored.size > self._stored.size:
                self._more_bytes = min(2 * self._more_bytes, self._rules.most_bytes)
            self._settle(stored)

    def close(self) -> UseValue | None:
        """Stop, and return exact counts if they differ from the stored value."""
        with self._lock:
            self.is_closed = True
            self._ceiling = -1
            exact = self._exact()
            return exact if exact != self._stored else None

    def counts(self) -> UseValue:
        """Return exact counts."""
        with self._lock:
            return self._exact()

    def _exact(self) -> UseValue:
        return UseValue(self._uses, self._size, self.last_used_at, self.warned)

    def _settle(self, stored: UseValue) -> None:
        self._stored, self.warned = stored, stored.warned
        self._ceiling = stored.uses
        if self.limit and not self.warned:
            self._ceiling = min(self._ceiling, self._near - 1)

    def is_near(self, uses: int) -> bool:
        """Return whether so many in all are worth a warning."""
        return bool(self.limit) and uses >= self._near
