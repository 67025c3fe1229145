# SPDX-License-Identifier: MIT
"""AES key wrap, without and with padding."""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.keywrap import (
    InvalidUnwrap,
    aes_key_unwrap,
    aes_key_unwrap_with_padding,
    aes_key_wrap,
    aes_key_wrap_with_padding,
)

from hsm_core._internal.crypto.handle import BaseHandle
from hsm_core.algorithms import Algorithm
from hsm_core.errors import DecryptionError, InputSizeError

MOST_BYTES: Final = 2**31 - 8
"""Longest input of one call: a limit of the library."""

_BLOCK_BYTES: Final = 8
_LEAST_UNPADDED: Final = 16


class KeyWrapHandle(BaseHandle):
    """
    An AES key that wraps other keys.

    Standard:
        SP 800-38F, sections 6.2 (KW) and 6.3 (KWP).
    """

    def __init__(self, algorithm: Algorithm, key: bytes) -> None:
        super().__init__(algorithm)
        self._key = key

    def public_der(self) -> bytes:
        """Return nothing: the key is symmetric."""
        return b""

    def wrap(self, data: bytes, /, *, padded: bool) -> bytes:
        """Return *data* wrapped; without padding it must be whole blocks."""
        least = 1 if padded else _LEAST_UNPADDED
        fits = padded or len(data) % _BLOCK_BYTES == 0
        if not (fits and least <= len(data) <= MOST_BYTES):
            raise InputSizeError(
                "data",
                actual=len(data),
                minimum=least,
                maximum=MOST_BYTES,
                unit="bytes" if padded else "bytes, a multiple of 8",
            )
        if padded:
            return aes_key_wrap_with_padding(self._key, data)
        return aes_key_wrap(self._key, data)

    def unwrap(self, wrapped: bytes, /, *, padded: bool) -> bytes:
        """Return what was wrapped, or raise `DecryptionError` whatever is wrong."""
        try:
            if padded:
                return aes_key_unwrap_with_padding(self._key, wrapped)
            return aes_key_unwrap(self._key, wrapped)
        except (InvalidUnwrap, ValueError, OverflowError):
            raise DecryptionError from None
