# SPDX-License-Identifier: MIT
"""
Mu, ML-DSA's message representative, made outside the module that signs.

::

    tr = SHAKE256(public key, 64)
    mu = SHAKE256(tr ‖ 0 ‖ len(context) ‖ context ‖ message, 64)

So a message of any size is hashed where it lies, and 64 bytes travel to be signed.

Standard:
    FIPS 204, algorithm 2, line 10, and algorithm 7, line 6; section 6.2 allows another
    module to compute it.
"""

from __future__ import annotations

import hashlib

from hsm_core._internal.crypto.der import read_public_key_info
from hsm_core._internal.crypto.parameters import MU_BYTES, signature_parameters
from hsm_core.algorithms import Algorithm


class MuDigest:
    """
    Computes mu of a message that comes in pieces.

    Args:
        algorithm: One of ML-DSA.

        public_der: SubjectPublicKeyInfo of the key that will sign.

        context: Up to 255 bytes, which mu holds.

    Raises:
        UnsupportedOperationError: The algorithm has no mu.
        InputSizeError: *context* is too long.
        InvalidInputError: *public_der* is not a key of this algorithm.
    """

    __slots__ = ("_hash",)

    def __init__(
        self, algorithm: Algorithm, public_der: bytes, context: bytes = b""
    ) -> None:
        signature_parameters(algorithm, external_mu=True)
        signature_parameters(algorithm, context=context)
        public = read_public_key_info(algorithm, public_der)
        self._hash = hashlib.shake_256(hashlib.shake_256(public).digest(MU_BYTES))
        self._hash.update(bytes([0, len(context)]) + context)

    def update(self, data: bytes, /) -> None:
        """Add the next piece of the message."""
        self._hash.update(data)

    def digest(self) -> bytes:
        """Return mu of all pieces so far, 64 bytes."""
        return self._hash.digest(MU_BYTES)
