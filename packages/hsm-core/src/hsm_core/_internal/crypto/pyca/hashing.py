# SPDX-License-Identifier: MIT
"""SHA-2 in the library's own terms, and MGF1."""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed

from hsm_core.algorithms import HashAlgorithm
from hsm_core.protocols import SignatureParameters

HASHES: Final[dict[HashAlgorithm, hashes.HashAlgorithm]] = {
    HashAlgorithm.SHA_256: hashes.SHA256(),
    HashAlgorithm.SHA_384: hashes.SHA384(),
    HashAlgorithm.SHA_512: hashes.SHA512(),
}


def hash_of(parameters: SignatureParameters) -> hashes.HashAlgorithm | Prehashed:
    """Return the hash to apply, or the note that it was applied already."""
    chosen = HASHES[parameters.hash]
    return Prehashed(chosen) if parameters.prehashed else chosen


def mgf1(chosen: HashAlgorithm, seed: bytes, length: int) -> bytes:
    """Return a mask of *length* bytes (RFC 8017, appendix B.2.1)."""
    mask = b""
    for counter in range(-(-length // chosen.digest_bytes)):
        state = hashes.Hash(HASHES[chosen])
        state.update(seed + counter.to_bytes(4))
        mask += state.finalize()
    return mask[:length]
