# SPDX-License-Identifier: MIT
"""HKDF."""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from hsm_core._internal.crypto.handle import BaseHandle
from hsm_core._internal.crypto.pyca.hashing import HASHES
from hsm_core.algorithms import Algorithm, HashAlgorithm, spec
from hsm_core.errors import InputSizeError

_MOST_BLOCKS: Final = 255


class HKDFHandle(BaseHandle):
    """
    A key that others are derived from.

    Standard:
        RFC 5869, sections 2.2 and 2.3; SP 800-56C, section 5.1.
    """

    def __init__(self, algorithm: Algorithm, key: bytes) -> None:
        super().__init__(algorithm)
        self._key = key

    def public_der(self) -> bytes:
        """Return nothing: the key is symmetric."""
        return b""

    def derive(self, salt: bytes, info: bytes, length: int, /) -> bytes:
        """Return *length* bytes; an empty *salt* stands for zeros."""
        hashed = spec(self._algorithm).hashes[0]
        return hkdf(hashed, self._key, salt=salt, info=info, length=length)


def hkdf(
    hash: HashAlgorithm, secret: bytes, *, salt: bytes, info: bytes, length: int
) -> bytes:
    """
    Return *length* bytes derived from a secret of any length.

    Raises:
        InputSizeError: *length* is not between 1 and 255 times the hash's length.

    Standard:
        RFC 5869; SP 800-56C, section 5.1, with HMAC and the feedback mode of
        SP 800-108.
    """
    longest = _MOST_BLOCKS * hash.digest_bytes
    if not 1 <= length <= longest:
        raise InputSizeError("length", actual=length, minimum=1, maximum=longest)
    return HKDF(HASHES[hash], length, salt, info).derive(secret)
