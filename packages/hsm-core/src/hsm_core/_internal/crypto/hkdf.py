# SPDX-License-Identifier: MIT
"""HKDF over secrets of any length, with any SHA-2 hash."""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from hsm_core._internal.crypto.pyca.hashing import HASHES
from hsm_core.algorithms import Algorithm, HashAlgorithm
from hsm_core.errors import InputSizeError

__all__ = ["ALGORITHM_OF", "hkdf"]

ALGORITHM_OF: Final = {
    HashAlgorithm.SHA_256: Algorithm.HKDF_SHA_256,
    HashAlgorithm.SHA_384: Algorithm.HKDF_SHA_384,
    HashAlgorithm.SHA_512: Algorithm.HKDF_SHA_512,
}
"""The algorithm whose self-test speaks for HKDF with a hash."""

_MOST_BLOCKS: Final = 255


def hkdf(
    hash: HashAlgorithm, secret: bytes, *, salt: bytes, info: bytes, length: int
) -> bytes:
    """
    Return *length* bytes derived from a secret.

    Raises:
        InputSizeError: *length* is not between 1 and 255 times the hash's length.

    Standard:
        RFC 5869; SP 800-56C, section 5.1, with HMAC and the feedback mode of
        SP 800-108.
    """
    longest = _MOST_BLOCKS * hash.digest_bytes
    if not 1 <= length <= longest:
        raise InputSizeError("length", actual=length, minimum=1, maximum=longest)
    derivation = HKDF(HASHES[hash], length, salt or None, info)
    return derivation.derive(secret)
