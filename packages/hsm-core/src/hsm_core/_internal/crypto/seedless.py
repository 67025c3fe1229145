# SPDX-License-Identifier: MIT
"""
Keys of ML-KEM in their expanded form, where a provider makes or takes no seeds.

Standard:
    FIPS 203, algorithm 16: dk = dkPKE ‖ ek ‖ H(ek) ‖ z.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from hsm_core._internal.crypto.der import read_private_form
from hsm_core.algorithms import Algorithm, spec
from hsm_core.errors import InvalidInputError

_MADE_WITHOUT_SEED: Final = frozenset({Algorithm.ML_KEM_512})
"""Algorithms whose keys may have been made by a provider without seeds."""

_PART_BYTES: Final = 32


def expanded_alone(algorithm: Algorithm, material: bytes) -> bytes:
    """
    Return the key of our own material that was made without a seed; else nothing.

    Its public part is that of `encapsulation_key`.

    Raises:
        InvalidInputError: It is not PKCS#8 of this algorithm, or the public part is
            not the one that the key names.
    """
    if algorithm not in _MADE_WITHOUT_SEED:
        return b""
    form = read_private_form(algorithm, material)
    if form.seed:
        return b""
    encapsulation_key(algorithm, form.expanded)
    return form.expanded


def encapsulation_key(algorithm: Algorithm, expanded: bytes) -> bytes:
    """
    Return the public key inside an expanded key, whose own hash of it is checked.

    Args:
        algorithm: What it is a key of.

        expanded: As long as the algorithm's expanded keys.

    Raises:
        InvalidInputError: The hash is another one (FIPS 203, section 7.3, check 3).
    """
    end = len(expanded) - 2 * _PART_BYTES
    public = expanded[end - spec(algorithm).public_bytes : end]
    own_hash = expanded[end : end + _PART_BYTES]
    if not hmac.compare_digest(hashlib.sha3_256(public).digest(), own_hash):
        raise InvalidInputError(
            f"material of {algorithm} holds a public key that does not match its "
            "private key.",
            field="material",
            algorithm=algorithm.value,
        )
    return public
