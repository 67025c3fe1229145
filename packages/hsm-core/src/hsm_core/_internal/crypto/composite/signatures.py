# SPDX-License-Identifier: MIT
"""
Composite ML-DSA: both halves sign one representative of the message.

::

    M'        = "CompositeAlgorithmSignatures2025" ‖ label ‖ len(ctx) ‖ ctx ‖ PH(M)
    signature = ML-DSA.Sign(M', context = label) ‖ Trad.Sign(M')

The label binds both halves to the composite. Taken apart, ML-DSA's fails without that
context, and the other covers M' alone, which says where it comes from.
"""

from __future__ import annotations

import hashlib
from typing import Final

from hsm_core._internal.crypto.composite.serialization import join_public
from hsm_core._internal.crypto.handle import BaseHandle
from hsm_core._internal.crypto.parameters import (
    check_signing,
    check_verifying,
    signature_parameters,
)
from hsm_core.algorithms import Algorithm, HashAlgorithm, spec
from hsm_core.errors import SignatureMismatchError
from hsm_core.protocols import KeyHandle, SignatureParameters

_PREFIX: Final = b"CompositeAlgorithmSignatures2025"
_HASH_NAMES: Final = {
    HashAlgorithm.SHA_256: "sha256",
    HashAlgorithm.SHA_384: "sha384",
    HashAlgorithm.SHA_512: "sha512",
}


class CompositeSignaturePublicHandle(BaseHandle):
    """
    The public half of a composite signature key.

    Standard:
        draft-ietf-lamps-pq-composite-sigs-19, section "Verify".
    """

    def __init__(
        self, algorithm: Algorithm, quantum_safe: KeyHandle, traditional: KeyHandle
    ) -> None:
        super().__init__(algorithm)
        label = spec(algorithm).label
        self._halves = (
            (
                quantum_safe,
                signature_parameters(quantum_safe.algorithm, context=label),
            ),
            (traditional, signature_parameters(traditional.algorithm)),
        )
        self._border = spec(quantum_safe.algorithm).signature_bytes
        self._public_der = join_public(
            algorithm, quantum_safe.public_der(), traditional.public_der()
        )

    def public_der(self) -> bytes:
        """Return SubjectPublicKeyInfo under the composite's OID."""
        return self._public_der

    def verify(
        self, data: bytes, signature: bytes, parameters: SignatureParameters, /
    ) -> None:
        """Check both halves, always; it is not said which one is wrong."""
        check_verifying(self._algorithm, data, parameters)
        longest = spec(self._algorithm).signature_bytes
        if not self._border < len(signature) <= longest:
            raise SignatureMismatchError
        message = self._representative(data, parameters)
        parts = (signature[: self._border], signature[self._border :])
        matches = [
            _matches(handle, message, part, own)
            for (handle, own), part in zip(self._halves, parts, strict=True)
        ]
        if not all(matches):
            raise SignatureMismatchError

    def _representative(self, data: bytes, parameters: SignatureParameters) -> bytes:
        digest = (
            data
            if parameters.prehashed
            else hashlib.new(_HASH_NAMES[parameters.hash], data).digest()
        )
        context = parameters.context
        return b"".join(
            (
                _PREFIX,
                spec(self._algorithm).label,
                bytes([len(context)]),
                context,
                digest,
            )
        )


class CompositeSignaturePrivateHandle(CompositeSignaturePublicHandle):
    """
    A composite signature key pair.

    Standard:
        draft-ietf-lamps-pq-composite-sigs-19, section "Sign".
    """

    def sign(self, data: bytes, parameters: SignatureParameters, /) -> bytes:
        """Return both signatures, ML-DSA's first; its length is fixed."""
        check_signing(self._algorithm, data, parameters)
        message = self._representative(data, parameters)
        return b"".join(handle.sign(message, own) for handle, own in self._halves)


def _matches(
    handle: KeyHandle, message: bytes, part: bytes, parameters: SignatureParameters
) -> bool:
    try:
        handle.verify(message, part, parameters)
    except SignatureMismatchError:
        return False
    return True
