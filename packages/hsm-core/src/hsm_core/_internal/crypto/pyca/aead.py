# SPDX-License-Identifier: MIT
"""AES-GCM and ChaCha20-Poly1305."""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305

from hsm_core._internal.crypto.handle import BaseHandle
from hsm_core.algorithms import Algorithm
from hsm_core.errors import DecryptionError, InputSizeError

NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
MOST_BYTES: Final = 2**31 - 1 - TAG_BYTES
"""Longest plaintext or additional data of one call: a limit of the library."""


class AEADHandle(BaseHandle):
    """
    An AES-GCM or ChaCha20-Poly1305 key.

    Standard:
        SP 800-38D with 96-bit IV and 128-bit tag; RFC 8439, section 2.8.
    """

    def __init__(self, algorithm: Algorithm, key: bytes) -> None:
        super().__init__(algorithm)
        self._key: AESGCM | ChaCha20Poly1305 = (
            ChaCha20Poly1305(key)
            if algorithm is Algorithm.CHACHA20_POLY1305
            else AESGCM(key)
        )

    def public_der(self) -> bytes:
        """Return nothing: the key is symmetric."""
        return b""

    def seal(self, nonce: bytes, plaintext: bytes, aad: bytes, /) -> bytes:
        """Return ciphertext ‖ tag."""
        for field, value, minimum, maximum in (
            ("nonce", nonce, NONCE_BYTES, NONCE_BYTES),
            ("plaintext", plaintext, 0, MOST_BYTES),
            ("aad", aad, 0, MOST_BYTES),
        ):
            if not minimum <= len(value) <= maximum:
                raise InputSizeError(
                    field, actual=len(value), minimum=minimum, maximum=maximum
                )
        return self._key.encrypt(nonce, plaintext, aad)

    def open(self, nonce: bytes, ciphertext: bytes, aad: bytes, /) -> bytes:
        """Return the plaintext, or raise `DecryptionError` whatever is wrong."""
        if len(nonce) != NONCE_BYTES or len(ciphertext) < TAG_BYTES:
            raise DecryptionError
        try:
            return self._key.decrypt(nonce, ciphertext, aad)
        except (InvalidTag, ValueError, OverflowError):
            raise DecryptionError from None
