# SPDX-License-Identifier: MIT
"""Operations that arrive in pieces."""

from __future__ import annotations

from typing import Final

from hsm_core.errors import HSMError, OverloadedError, PayloadTooLargeError
from hsm_server.ipc.frames import MAX_WAITING

__all__ = ["Assemblies"]

_MOST_AT_ONCE: Final = 8


class Assemblies:
    """
    Keeps the pieces of one connection, within bounds.

    Args:
        longest: Longest operation, in bytes. All that are under way together may be
            eight times as long.
    """

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._pieces: dict[int, bytearray] = {}
        self._refused: dict[int, HSMError] = {}
        self._total = 0

    def __contains__(self, number: int) -> bool:
        return number in self._pieces

    @property
    def is_full(self) -> bool:
        """Whether no further operation may be begun."""
        return len(self._pieces) >= MAX_WAITING

    def add(self, number: int, piece: bytes) -> None:
        """Keep a piece; of an operation that becomes too much, nothing is kept."""
        pieces = self._pieces.setdefault(number, bytearray())
        if number in self._refused:
            return
        pieces += piece
        self._total += len(piece)
        if len(pieces) > self._longest:
            self._refuse(number, self._too_large(len(pieces)))
        elif self._total > self._longest * _MOST_AT_ONCE:
            self._refuse(number, OverloadedError())

    def complete(self, number: int, rest: bytes) -> bytes:
        """
        Return a whole operation, and forget its pieces.

        Raises:
            PayloadTooLargeError: It is too long.
            OverloadedError: There was too much under way together.
        """
        pieces = self._pieces.pop(number, None)
        error = self._refused.pop(number, None)
        if error is not None:
            raise error
        if pieces is None:
            return rest
        self._total -= len(pieces)
        if len(pieces) + len(rest) > self._longest:
            raise self._too_large(len(pieces) + len(rest))
        return bytes(pieces) + rest

    def drop(self, number: int) -> None:
        """Forget an operation that will not be completed."""
        self._total -= len(self._pieces.pop(number, b""))
        self._refused.pop(number, None)

    def clear(self) -> None:
        """Forget everything."""
        self._pieces.clear()
        self._refused.clear()
        self._total = 0

    def _refuse(self, number: int, error: HSMError) -> None:
        self._total -= len(self._pieces[number])
        self._pieces[number] = bytearray()
        self._refused[number] = error

    def _too_large(self, actual: int) -> HSMError:
        return PayloadTooLargeError("operation", actual=actual, maximum=self._longest)
