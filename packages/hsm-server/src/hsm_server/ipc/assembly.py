# SPDX-License-Identifier: MIT
"""Assembly of operations that arrive in chunks, within memory limits."""

from __future__ import annotations

from typing import Final

from hsm_core.errors import HSMError, OverloadedError, PayloadTooLargeError
from hsm_server.ipc.frames import MAX_WAITING

_MOST_AT_ONCE: Final = 8


class Assemblies:
    """
    Bounded chunks of one connection.

    An operation counts from its first chunk until it is dropped, after its response.

    Args:
        longest: Longest operation, in bytes. All that are under way together may be
            eight times as long.
    """

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._pieces: dict[int, bytearray] = {}
        self._refused: dict[int, HSMError] = {}
        self._sizes: dict[int, int] = {}
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
        try:
            self._count(number, len(piece))
        except HSMError as error:
            self._pieces[number] = bytearray()
            self._refused[number] = error
        else:
            pieces += piece

    def complete(self, number: int, rest: bytes) -> bytes | bytearray:
        """
        Return a whole operation, and keep nothing but its size.

        Raises:
            PayloadTooLargeError: It is too long.
            OverloadedError: There was too much under way together.
        """
        pieces = self._pieces.pop(number, None)
        error = self._refused.pop(number, None)
        if error is not None:
            raise error
        self._count(number, len(rest))
        if pieces is None:
            return rest
        pieces += rest
        # Not copied: for as long as that takes, nobody is answered.
        return pieces

    def drop(self, number: int) -> None:
        """Forget an operation."""
        self._pieces.pop(number, None)
        self._refused.pop(number, None)
        self._total -= self._sizes.pop(number, 0)

    def clear(self) -> None:
        """Forget everything."""
        self._pieces.clear()
        self._refused.clear()
        self._sizes.clear()
        self._total = 0

    def _count(self, number: int, more: int) -> None:
        """
        Count bytes in; of an operation that is refused, none count any more.

        Raises:
            HSMError: See `complete`.
        """
        size = self._sizes.get(number, 0) + more
        total = self._total + more
        if size <= self._longest and total <= self._longest * _MOST_AT_ONCE:
            self._sizes[number], self._total = size, total
            return
        self._total -= self._sizes.pop(number, 0)
        if size > self._longest:
            raise PayloadTooLargeError("operation", actual=size, maximum=self._longest)
        raise OverloadedError
