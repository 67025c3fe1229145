# SPDX-License-Identifier: MIT
"""Injected dependencies: clock, entropy, root key and trust anchors."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

__all__ = [
    "Clock",
    "CredentialKeys",
    "Entropy",
    "MasterKeySource",
]


class Clock(Protocol):
    """Time, injected everywhere."""

    def now(self) -> int:
        """Return wall time, in microseconds since 1970-01-01T00:00:00Z."""
        ...

    def monotonic(self) -> float:
        """Return a time that never goes back, in seconds."""
        ...


class Entropy(Protocol):
    """Randomness, injected everywhere."""

    def random_bytes(self, length: int, /) -> bytes:
        """
        Return *length* bytes, unpredictable and never repeated.

        Raises:
            EntropyUnavailableError: The source failed its health test.
        """
        ...


class CredentialKeys(Protocol):
    """
    The keys that vouch for credentials, by the names in `Caller.credential_key`.

    What was agreed to with a credential counts no more when its key does not.
    """

    def trusted(self) -> Collection[str]:
        """Return the names of the keys that count now; may be asked by any thread."""
        ...


class MasterKeySource(Protocol):
    """Holder of the root, which seals the key ring and nothing else."""

    def seal(self, plaintext: bytes, context: bytes, /) -> bytes:
        """Return *plaintext* encrypted and bound to *context*."""
        ...

    def open(self, blob: bytes, context: bytes, /) -> bytes:
        """
        Return what `seal` was given.

        Raises:
            WrongMasterKeyError: It was sealed by another root, or changed.
        """
        ...
