# SPDX-License-Identifier: MIT
"""HKDF over secrets of any length, with any SHA-2 hash."""

from __future__ import annotations

from typing import Final

from hsm_core._internal.crypto.pyca.kdf import hkdf
from hsm_core.algorithms import Algorithm, HashAlgorithm

__all__ = ["ALGORITHM_OF", "hkdf"]

ALGORITHM_OF: Final = {
    HashAlgorithm.SHA_256: Algorithm.HKDF_SHA_256,
    HashAlgorithm.SHA_384: Algorithm.HKDF_SHA_384,
    HashAlgorithm.SHA_512: Algorithm.HKDF_SHA_512,
}
"""The algorithm whose self-test speaks for HKDF with a hash."""
