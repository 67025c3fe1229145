# SPDX-License-Identifier: MIT
"""Data types of SSH (RFC 4251, section 5)."""

from __future__ import annotations

from typing import Final


class MalformedError(ValueError):
    """Bytes are not what a format of SSH demands."""


class SSHReader:
    """
    Strict reader of a byte string.

    Every method raises `MalformedError` if there are too few bytes.
    """

    def __init__(self, data: bytes) -> None:
        self._data: Final = data
        self._place = 0

    def take(self, length: int) -> bytes:
        """Return the next *length* bytes."""
        start, self._place = self._place, self._place + length
        if self._place > len(self._data):
            raise MalformedError
        return self._data[start : self._place]

    def byte(self) -> int:
        """Return a byte."""
        return self.take(1)[0]

    def boolean(self) -> bool:
        """Return a boolean; any value but 0 is true."""
        return bool(self.byte())

    def uint32(self) -> int:
        """Return an integer of 4 bytes."""
        return int.from_bytes(self.take(4), "big")

    def uint64(self) -> int:
        """Return an integer of 8 bytes."""
        return int.from_bytes(self.take(8), "big")

    def string(self) -> bytes:
        """Return a byte string."""
        return self.take(self.uint32())

    def text(self) -> str:
        """Return a string of UTF-8."""
        try:
            return self.string().decode()
        except UnicodeDecodeError:
            raise MalformedError from None

    def strings(self) -> tuple[bytes, ...]:
        """Return the strings of a string that holds nothing else."""
        inner, found = SSHReader(self.string()), []
        while not inner.is_at_end:
            found.append(inner.string())
        return tuple(found)

    @property
    def is_at_end(self) -> bool:
        """Whether every byte was read."""
        return self._place == len(self._data)

    def end(self) -> None:
        """Raise `MalformedError` unless every byte was read."""
        if not self.is_at_end:
            raise MalformedError


def uint32(number: int) -> bytes:
    """Encode an integer of 4 bytes."""
    return number.to_bytes(4, "big")


def string(data: bytes | str) -> bytes:
    """Encode a byte string."""
    raw = data.encode() if isinstance(data, str) else data
    return uint32(len(raw)) + raw


def mpint(number: int) -> bytes:
    """Encode a positive integer of any length."""
    return string(number.to_bytes(number.bit_length() // 8 + 1, "big"))
