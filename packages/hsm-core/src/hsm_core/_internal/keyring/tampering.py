# SPDX-License-Identifier: MIT
"""Tampering state: disabled keys, and the lock of the whole HSM."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from hsm_core.errors import Fact, HSMLockedError, KeyTamperedError
from hsm_core.model import Integrity, KeyId


@dataclass(frozen=True, slots=True)
class Finding:
    """Integrity finding of a key; *problem* as in `KeyFinding`."""

    integrity: Integrity
    problem: str
    reason: str


class TamperedKeys:
    """
    Keys that are disabled, wholly or in part. Thread-safe.

    Each stays disabled until it is recovered, or the next start finds it intact.
    Corrected index rows are findings until the next start.

    Args:
        on_tampering: Called once for each key.

    Attributes:
        changes: Number of findings added and removed.
    """

    def __init__(self, on_tampering: Callable[[KeyId, Finding], None]) -> None:
        self._on_tampering = on_tampering
        self._found: dict[KeyId, Finding] = {}
        self._suspected: set[KeyId] = set()
        self._corrected: set[KeyId] = set()
        self._kept: set[KeyId] = set()
        self._lock = threading.Lock()
        self.changes = 0

    def __len__(self) -> int:
        with self._lock:
            return len(self._suspected.union(self._found))

    def integrity(self, key_id: KeyId) -> Integrity:
        """Return a key's known integrity, without checking again."""
        found = self._found.get(key_id)
        return found.integrity if found else Integrity.OK

    def check(self, key_id: KeyId) -> None:
        """
        Check that a key has no finding, without checking the store again.

        Raises:
            KeyTamperedError: Something was.
        """
        found = self._found.get(key_id)
        if found is not None:
            raise tampering(key_id, found.reason, found.integrity, found.problem)

    def condemn(self, key_id: KeyId, error: KeyTamperedError) -> None:
        """Disable a key; the first finding is kept."""
        missing = error.facts.get("integrity") == Integrity.MISSING.value
        usual = "missing" if missing else "document"
        problem = str(error.facts.get("problem", usual))
        kind = Integrity.MISSING if missing else Integrity.TAMPERED
        reason = "Its stored data was altered."
        if "problem" in error.facts:
            reason = str(error).partition(" was tampered with: ")[2] or reason
        elif "format" in error.facts:
            # A newer release has written it: who used this one should learn that.
            reason = str(error)
        finding = Finding(kind, problem, reason)
        with self._lock:
            is_news = key_id not in self._found
            self._found.setdefault(key_id, finding)
            self.changes += is_news
        if is_news:
            self._on_tampering(key_id, finding)

    def suspect(self, key_id: KeyId, kind: Integrity) -> None:
        """Note a key with an unauthentic use counter; it may still decrypt."""
        with self._lock:
            is_news = key_id not in self._suspected
            self._suspected.add(key_id)
        if is_news:
            self._on_tampering(key_id, Finding(kind, "counter", ""))

    def trust(self, key_id: KeyId) -> None:
        """Clear the finding of a key's use counter after it was replaced."""
        with self._lock:
            self._suspected.discard(key_id)

    def note_kept(self, key_id: KeyId, *, is_kept: bool) -> None:
        """Note whether a key has a sealed blob of a destroyed version still."""
        with self._lock:
            (self._kept.add if is_kept else self._kept.discard)(key_id)

    def note_corrected(self, key_id: KeyId) -> bool:
        """
        Note a key with a corrected index row; it stays enabled.

        Returns:
            Whether it is the first time since the start.
        """
        with self._lock:
            is_news = key_id not in self._corrected
            self._corrected.add(key_id)
            self.changes += 1
        return is_news

    def release(self, key_id: KeyId) -> None:
        """Clear the findings of a key's document and blobs."""
        with self._lock:
            self.changes += self._found.pop(key_id, None) is not None

    def problems(self) -> Mapping[KeyId, str]:
        """Return the finding of each key that has one."""
        with self._lock:
            found = dict.fromkeys(self._corrected, "index")
            found.update(dict.fromkeys(self._kept, "kept"))
            found.update(dict.fromkeys(self._suspected, "counter"))
            found.update((key, finding.problem) for key, finding in self._found.items())
            return dict(sorted(found.items()))


@dataclass(slots=True)
class StoreLock:
    """
    Lock of the whole HSM, and its reason.

    Attributes:
        reason: For people; empty if it is not locked.
        facts: For programs.
    """

    reason: str = ""
    facts: Mapping[str, Fact] = field(default_factory=dict)

    def set(self, reason: str, facts: Mapping[str, Fact]) -> None:
        """Lock it."""
        self.facts, self.reason = dict(facts), reason

    def open(self) -> None:
        """Unlock it."""
        self.reason = ""

    def check(self) -> None:
        """
        Check that it is not locked.

        Raises:
            HSMLockedError: It is.
        """
        if self.reason:
            raise HSMLockedError(f"The HSM is locked. {self.reason}", **self.facts)


def tampering(
    key_id: KeyId,
    reason: str,
    found: Integrity = Integrity.TAMPERED,
    problem: str = "",
) -> KeyTamperedError:
    """Return the error for a key whose stored form was altered or is missing."""
    facts = {"problem": problem} if problem else {}
    return KeyTamperedError(
        f"The stored key {key_id} was tampered with: {reason}",
        key_id=key_id,
        integrity=found.value,
        **facts,
    )
