# SPDX-License-Identifier: MIT
"""
Claims on unique names: the first claimant holds the name, then the next.

In an intact store no two keys share a name, so later claimants are kept separately.
"""

from __future__ import annotations

from hsm_core.model import KeyId


class Claims:
    """Keys by a name that each of them claims. Not thread-safe."""

    def __init__(self) -> None:
        self._holders: dict[str, KeyId] = {}
        self._waiting: dict[str, list[KeyId]] = {}

    def holder(self, name: str) -> KeyId | None:
        """Return the key that holds a name."""
        return self._holders.get(name)

    def claim(self, name: str, key_id: KeyId) -> None:
        """Give a name to a key, or queue the key for it; a key claims it once."""
        if self._holders.setdefault(name, key_id) != key_id:
            self._waiting.setdefault(name, []).append(key_id)

    def release(self, name: str, key_id: KeyId) -> None:
        """Remove a claim; the name passes to the key that waits longest."""
        waiting = self._waiting.get(name)
        if self._holders[name] == key_id:
            if waiting:
                self._holders[name] = waiting.pop(0)
            else:
                del self._holders[name]
        elif waiting:
            waiting.remove(key_id)
        if waiting == []:
            del self._waiting[name]

    def clear(self) -> None:
        """Remove all claims."""
        self._holders.clear()
        self._waiting.clear()
