# SPDX-License-Identifier: MIT
"""
Data types of SSH, read strictly.

Standard:
    RFC 4251, section 5.
"""

from __future__ import annotations

from hsm_core.errors import MalformedError


class SSHData:
    """
    Bytes that are read from front to end.

    Every method raises `MalformedError` where the data is not what it should be.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, count: int) -> bytes:
        """Return so many bytes."""
        part = self._data[self._at : self._at + count]
        if len(part) != count:
            raise MalformedError("The signature is truncated.")
        self._at += count
        return part

    def number(self) -> int:
        """Return an unsigned integer of 4 bytes."""
        return int.from_bytes(self.take(4), "big")

    def string(self) -> bytes:
        """Return bytes that follow their length."""
        return self.take(self.number())

    def positive(self) -> int:
        """Return a positive integer in its shortest form."""
        data = self.string()
        value = int.from_bytes(data, "big")
        if value == 0 or len(data) != value.bit_length() // 8 + 1:
            raise MalformedError(
                "The signature holds a number that is not in canonical form."
            )
        return value

    def end(self) -> None:
        """Check that nothing is left."""
        if self._at != len(self._data):
            raise MalformedError("The signature has trailing bytes.")
