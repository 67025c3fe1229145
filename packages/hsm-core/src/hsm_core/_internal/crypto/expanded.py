# SPDX-License-Identifier: MIT
"""
Private keys of ML-KEM and ML-DSA as PKCS#8, of which only the seed is used.

Some programs write the expanded key too, or it alone. The seed is the key; what was
expanded from it can't be taken on trust, and no seed can be found from it.

Standard:
    RFC 9881, section 8.2, and its like in RFC 9935: a seed and an expanded key that
    don't belong together must be refused. FIPS 203, algorithm 16; FIPS 204,
    algorithm 6.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Final

from hsm_core._internal.crypto.der import PrivateForm, read_private_form
from hsm_core.algorithms import Algorithm, Family, spec
from hsm_core.errors import InvalidInputError

__all__ = ["check_expanded", "read_foreign_form", "read_own_seed"]

_DIMENSIONS: Final = {
    Algorithm.ML_DSA_44: bytes([4, 4]),
    Algorithm.ML_DSA_65: bytes([6, 5]),
    Algorithm.ML_DSA_87: bytes([8, 7]),
}
"""k and l of FIPS 204, table 1, as key generation hashes them."""


def read_own_seed(algorithm: Algorithm, material: bytes) -> bytes:
    """
    Return the seed of material in the one form that is kept.

    Raises:
        InvalidInputError: It is not PKCS#8 of this algorithm with a seed alone.
    """
    form = read_foreign_form(algorithm, material)
    if form.expanded:
        raise _refusal(algorithm, "holds more than the seed")
    return form.seed


def read_foreign_form(algorithm: Algorithm, material: bytes) -> PrivateForm:
    """
    Return seed and expanded key of PKCS#8 from elsewhere.

    What was expanded still has to pass `check_expanded`.

    Raises:
        InvalidInputError: It is not PKCS#8 of this algorithm, or has no seed.
    """
    form = read_private_form(algorithm, material)
    if not form.seed:
        raise _refusal(
            algorithm,
            "holds the expanded key alone; export it with its seed, "
            "which can't be found from it",
        )
    return form


def check_expanded(algorithm: Algorithm, form: PrivateForm, raw_public: bytes) -> None:
    """
    Check that an expanded key is the one of the seed beside it.

    Checked is all that follows from seed and public key by hashing. The secret
    vectors are not: they are never used, since the provider expands the seed itself.

    Args:
        algorithm: An ML-KEM or ML-DSA algorithm.

        form: What was read; without an expanded key there is nothing to check.

        raw_public: Public key that the provider made from the seed.

    Raises:
        InvalidInputError: It is another key's.
    """
    if not form.expanded:
        return
    if spec(algorithm).family is Family.ML_KEM:
        known = _known_of_ml_kem(form.seed, raw_public)
        given = form.expanded[-len(known) :]
    else:
        known = _known_of_ml_dsa(_DIMENSIONS[algorithm], form.seed, raw_public)
        given = form.expanded[: len(known)]
    if not hmac.compare_digest(known, given):
        raise _refusal(algorithm, "holds an expanded key that is not its seed's")


def _known_of_ml_kem(seed: bytes, raw_public: bytes) -> bytes:
    """Return ek ‖ H(ek) ‖ z, which end the key; the seed is d ‖ z."""
    return raw_public + hashlib.sha3_256(raw_public).digest() + seed[32:]


def _known_of_ml_dsa(dimensions: bytes, seed: bytes, raw_public: bytes) -> bytes:
    """Return rho ‖ K ‖ tr, which begin the key; K ends what the seed is hashed to."""
    key = hashlib.shake_256(seed + dimensions).digest(128)[96:]
    return raw_public[:32] + key + hashlib.shake_256(raw_public).digest(64)


def _refusal(algorithm: Algorithm, reason: str) -> InvalidInputError:
    return InvalidInputError(
        f"material of {algorithm} {reason}.",
        field="material",
        algorithm=algorithm.value,
    )
