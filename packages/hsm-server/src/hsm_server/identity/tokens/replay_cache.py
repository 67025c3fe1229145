# SPDX-License-Identifier: MIT
"""Replay cache: tokens already used, for rules that require fresh tokens."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from typing import Final

from hsm_server.identity.tokens.verifier import Identity

MOST_SPENT: Final = 100_000
"""Maximum number of remembered tokens; at the limit no other token is fresh."""


class ReplayCache:
    """
    Replay cache: remembers each token until it expires, and removes none early.

    It cannot know tokens used before its start or while no rule required freshness. So
    a token is fresh only if it was issued later, by both clocks. Thread-safe.

    Args:
        now: Time, in seconds since 1970, that never goes back.

        most: Maximum number of tokens.
    """

    def __init__(self, now: Callable[[], float], most: int = MOST_SPENT) -> None:
        self._now = now
        self._most = most
        self._lock = threading.Lock()
        self._since = now()
        self._spent: dict[bytes, float] = {}
        self._next_end = 0.0

    def __len__(self) -> int:
        return len(self._spent)

    def forget(self) -> None:
        """Discard the record of used tokens; no rule requires freshness."""
        with self._lock:
            self._since = self._now()
            self._spent.clear()

    def restart(self) -> None:
        """Take no token for fresh that was made until now: the time was set back."""
        with self._lock:
            self._since = self._now()

    def spend(self, identity: Identity, leeway_seconds: float) -> bool:
        """
        Return whether a token is used for the first time, and remember it.

        Args:
            identity: Whom it names; a token without an id is never fresh.

            leeway_seconds: How far the clock of who made it may be off.
        """
        now = self._now()
        name = f"{identity.key_name} {identity.token_id}".encode()
        digest = hashlib.sha256(name).digest()
        with self._lock:
            if not identity.token_id or digest in self._spent:
                return False
            if identity.issued_at <= self._since + leeway_seconds:
                return False
            if len(self._spent) >= self._most and not self._drop_ended(now):
                return False
            self._spent[digest] = identity.expires_at
            self._next_end = min(self._next_end, identity.expires_at)
            return True

    def _drop_ended(self, now: float) -> bool:
        """Forget tokens that are refused anyhow; return whether there is room now."""
        if now < self._next_end:
            return False
        self._spent = {d: end for d, end in self._spent.items() if now < end}
        self._next_end = min(self._spent.values(), default=0.0)
        return len(self._spent) < self._most
