# SPDX-License-Identifier: MIT
"""From the hashes of ``cryptography`` to those of the HSM, and digests."""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from hsm_core.algorithms import HashAlgorithm
from hsm_core.errors import InputSizeError, UnsupportedOperationError
from hsm_core.keys._paddings import hash_of_prehashed

__all__ = ["digest_of", "name_of"]

_NAMES: Final = {
    "sha256": HashAlgorithm.SHA_256,
    "sha384": HashAlgorithm.SHA_384,
    "sha512": HashAlgorithm.SHA_512,
}


def name_of(algorithm: object) -> HashAlgorithm:
    """
    Return what the HSM calls a hash.

    Raises:
        UnsupportedOperationError: It signs with no such hash.
    """
    if isinstance(algorithm, hashes.HashAlgorithm):
        found = _NAMES.get(algorithm.name)
        if found is not None:
            return found
    raise UnsupportedOperationError(
        "The hash must be SHA-256, SHA-384 or SHA-512.", field="hash"
    )


def digest_of(data: bytes, algorithm: object) -> tuple[bytes, HashAlgorithm]:
    """
    Return the digest of data, or data that is one already, and by which hash.

    Large messages need not travel: what is signed is the same.

    Raises:
        InputSizeError: What should be a digest has another length.
        UnsupportedOperationError: See `name_of`.
    """
    if isinstance(algorithm, Prehashed):
        name = name_of(hash_of_prehashed(algorithm))
        if len(data) != name.digest_bytes:
            size = name.digest_bytes
            raise InputSizeError("data", actual=len(data), minimum=size, maximum=size)
        return bytes(data), name
    name = name_of(algorithm)
    if not isinstance(algorithm, hashes.HashAlgorithm):
        raise AssertionError("A hash that has a name is a hash.")
    hasher = hashes.Hash(algorithm)
    hasher.update(data)
    return hasher.finalize(), name
