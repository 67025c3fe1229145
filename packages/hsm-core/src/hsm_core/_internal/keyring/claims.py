# SPDX-License-Identifier: MIT
"""
Who has a name that several may claim: the first, and after it the next.

In an honest store nobody shares a name, so all but the first claimants lie apart.
"""

from __future__ import annotations

from hsm_core.model import KeyId


class Claims:
    """Keys by something that each of them claims for itself. Not safe for threads."""

    def __init__(self) -> None:
        self._holders: dict[str, KeyId] = {}
        self._waiting: dict[str, list[KeyId]] = {}

    def holder(self, name: str) -> KeyId | None:
        """Return the key that has a name."""
        return self._holders.get(name)

    def claim(self, name: str, key_id: KeyId) -> None:
        """Give a name to a key, or let the key wait for it; a key claims it once."""
        if self._holders.setdefault(name, key_id) != key_id:
            self._waiting.setdefault(name, []).append(key_id)

    def release(self, name: str, key_id: KeyId) -> None:
        """Take back a claim; the key that waits longest has the name then."""
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
        """Forget all claims."""
        self._holders.clear()
        self._waiting.clear()
