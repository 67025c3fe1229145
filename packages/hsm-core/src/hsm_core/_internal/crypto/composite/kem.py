# SPDX-License-Identifier: MIT
"""
Composite ML-KEM: both halves encapsulate, one hash combines their secrets.

::

    secret     = SHA3-256(mlkemSS ‖ tradSS ‖ tradCT ‖ tradPK ‖ label)
    ciphertext = mlkemCT ‖ tradCT

The traditional half is Diffie-Hellman with a key made for this one encapsulation,
whose public key is tradCT. Whoever breaks one half learns nothing of the secret.
"""

from __future__ import annotations

import hashlib

from hsm_core._internal.crypto.composite.components import Components
from hsm_core._internal.crypto.composite.serialization import (
    join_public,
    traditional_der,
    traditional_raw,
)
from hsm_core._internal.crypto.handle import BaseHandle
from hsm_core._internal.crypto.parameters import check_encapsulation
from hsm_core._internal.crypto.pyca.encoding import not_public_key
from hsm_core.algorithms import Algorithm, spec
from hsm_core.errors import DecryptionError, InvalidInputError
from hsm_core.protocols import KeyHandle


class CompositeKEMPublicHandle(BaseHandle):
    """
    The public half of a composite KEM key.

    Standard:
        draft-ietf-lamps-pq-composite-kem-18, sections "Encapsulation" and "KEM
        Combiner Function".
    """

    def __init__(
        self,
        algorithm: Algorithm,
        quantum_safe: KeyHandle,
        traditional: KeyHandle,
        components: Components,
    ) -> None:
        super().__init__(algorithm)
        self._quantum_safe = quantum_safe
        self._traditional = traditional
        self._components = components
        self._curve = traditional.algorithm
        self._traditional_der = traditional.public_der()
        self._public_der = join_public(
            algorithm, quantum_safe.public_der(), self._traditional_der
        )

    def public_der(self) -> bytes:
        """Return SubjectPublicKeyInfo under the composite's OID."""
        return self._public_der

    def encapsulate(self) -> tuple[bytes, bytes]:
        """
        Return a fresh shared secret and its encapsulation.

        Raises:
            InvalidInputError: The public key is one whose every secret is zero (RFC
                7748, section 6.1).
        """
        ephemeral = self._components.generate_ephemeral(self._curve)
        try:
            agreed = ephemeral.agree(self._traditional_der)
        except InvalidInputError:
            raise not_public_key(self._algorithm) from None
        secret, encapsulation = self._quantum_safe.encapsulate()
        point = traditional_raw(self._curve, ephemeral.public_der())
        return self._combine(secret, agreed, point), encapsulation + point

    def _combine(self, secret: bytes, agreed: bytes, point: bytes) -> bytes:
        static = traditional_raw(self._curve, self._traditional_der)
        label = spec(self._algorithm).label
        return hashlib.sha3_256(secret + agreed + point + static + label).digest()


class CompositeKEMPrivateHandle(CompositeKEMPublicHandle):
    """
    A composite KEM key pair.

    Standard:
        draft-ietf-lamps-pq-composite-kem-18, sections "Decapsulation" and "Error
        Handling and Explicit Rejection".
    """

    def decapsulate(self, ciphertext: bytes, /) -> bytes:
        """
        Return the shared secret of an encapsulation.

        A changed one gives another secret, unless its point is none of the curve.

        Raises:
            InputSizeError: It is of another length.
            DecryptionError: Its traditional half is no public key of the curve: the
                composite rejects explicitly whenever one of its halves does.
        """
        check_encapsulation(self._algorithm, ciphertext)
        border = spec(self._quantum_safe.algorithm).ciphertext_bytes
        encapsulation, point = ciphertext[:border], ciphertext[border:]
        secret = self._quantum_safe.decapsulate(encapsulation)
        try:
            agreed = self._traditional.agree(traditional_der(self._curve, point))
        except InvalidInputError:
            raise DecryptionError from None
        return self._combine(secret, agreed, point)
