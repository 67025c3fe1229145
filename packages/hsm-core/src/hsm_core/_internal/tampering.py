# SPDX-License-Identifier: MIT
"""Which keys were found tampered with; until the next start, each stays so."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

from hsm_core.errors import KeyTamperedError
from hsm_core.model import Integrity, KeyId

__all__ = ["TamperedKeys", "tampering"]


class TamperedKeys:
    """
    The keys that serve nothing any more, or not all they did. Safe for many threads.

    Args:
        on_tampering: Called once for each key.
    """

    def __init__(self, on_tampering: Callable[[KeyId, Integrity], None]) -> None:
        self._on_tampering = on_tampering
        self._found: dict[KeyId, Integrity] = {}
        self._suspected: set[KeyId] = set()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        with self._lock:
            return len(self._suspected.union(self._found))

    def integrity(self, key_id: KeyId) -> Integrity:
        """Return what is known of a key, without looking again."""
        return self._found.get(key_id, Integrity.OK)

    def condemn(self, key_id: KeyId, error: KeyTamperedError) -> None:
        """Note a key; what was found first stays."""
        missing = error.facts.get("integrity") == Integrity.MISSING.value
        kind = Integrity.MISSING if missing else Integrity.TAMPERED
        with self._lock:
            is_news = key_id not in self._found
            self._found.setdefault(key_id, kind)
        if is_news:
            self._on_tampering(key_id, kind)

    def suspect(self, key_id: KeyId, kind: Integrity) -> None:
        """Note a key whose use counter can't be believed; it may still decrypt."""
        with self._lock:
            is_news = key_id not in self._suspected
            self._suspected.add(key_id)
        if is_news:
            self._on_tampering(key_id, kind)

    def snapshot(self) -> Mapping[KeyId, Integrity]:
        """Return all that were found."""
        with self._lock:
            return dict(self._found)


def tampering(
    key_id: KeyId, reason: str, found: Integrity = Integrity.TAMPERED
) -> KeyTamperedError:
    """Return the error for a key whose stored form is not what it should be."""
    return KeyTamperedError(
        f"The stored key {key_id} was tampered with: {reason}",
        key_id=key_id,
        integrity=found.value,
    )
