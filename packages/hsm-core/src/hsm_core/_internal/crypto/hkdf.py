# SPDX-License-Identifier: MIT
"""HKDF over secrets of any length, with any SHA-2 hash."""

from __future__ import annotations

from typing import Final

from hsm_core._internal.crypto.pyca.kdf import hkdf
from hsm_core.algorithms import ALGORITHMS, Family

__all__ = ["ALGORITHM_OF", "hkdf"]

ALGORITHM_OF: Final = {
    row.hashes[0]: row.algorithm
    for row in ALGORITHMS.values()
    if row.family is Family.KDF
}
"""The algorithm whose self-test speaks for HKDF with a hash."""
