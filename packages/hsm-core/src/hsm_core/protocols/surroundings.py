# SPDX-License-Identifier: MIT
"""What every part is given rather than takes: time, randomness and the root."""

from __future__ import annotations

from typing import Protocol

__all__ = [
    "Clock",
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
