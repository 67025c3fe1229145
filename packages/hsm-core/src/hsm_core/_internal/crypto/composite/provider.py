# SPDX-License-Identifier: MIT
"""
Composite ML-KEM and composite ML-DSA, over the providers of their components.

::

    secret     = SHA3-256(mlkemSS ‖ tradSS ‖ tradCT ‖ tradPK ‖ label)
    ciphertext = mlkemCT ‖ tradCT

    M'         = "CompositeAlgorithmSignatures2025" ‖ label ‖ len(ctx) ‖ ctx ‖ PH(M)
    signature  = ML-DSA.Sign(M', context = label) ‖ Trad.Sign(M')

The traditional half of a KEM is Diffie-Hellman with an ephemeral key, whose public key
is tradCT. Breaking one half reveals nothing of the secret. The label binds both halves
of a signature to the composite.

A composite is one key with one OID. Its halves are generated, loaded and exported
together only, as the drafts require.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

from hsm_core._internal.crypto.composite.serialization import (
    Components,
    join_private,
    join_public,
    split_private,
    split_public,
    traditional_der,
    traditional_raw,
)
from hsm_core._internal.crypto.der import not_material, not_public_key
from hsm_core._internal.crypto.handle import BaseHandle
from hsm_core._internal.crypto.parameters import (
    check_encapsulation,
    check_signing,
    check_verifying,
    signature_parameters,
)
from hsm_core.algorithms import ALGORITHMS, Algorithm, HashAlgorithm, spec
from hsm_core.errors import DecryptionError, InvalidInputError, SignatureMismatchError
from hsm_core.protocols import Entropy, KeyHandle, SignatureParameters


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


_SERVED: Final = frozenset(
    algorithm for algorithm, row in ALGORITHMS.items() if row.is_hybrid
)
_VERSION: Final = ", ".join(sorted({spec(algorithm).draft for algorithm in _SERVED}))


class CompositeProvider:
    """
    `CryptoProvider` over the providers of the components.

    Args:
        components: Who serves these.
    """

    def __init__(self, components: Components) -> None:
        self._components = components

    @property
    def name(self) -> str:
        """Short name, used in settings."""
        return "composite"

    @property
    def version(self) -> str:
        """The drafts' names, with revision."""
        return _VERSION

    def algorithms(self) -> frozenset[Algorithm]:
        """Return every composite; each works as far as its components are served."""
        return _SERVED

    def generate(self, algorithm: Algorithm, entropy: Entropy, /) -> bytes:
        """Return fresh material; each half is generated by its own provider."""
        quantum_safe, traditional = spec(algorithm).components
        return join_private(
            algorithm,
            self._components.generate(quantum_safe).material,
            self._components.generate(traditional).material,
        )

    def load(self, algorithm: Algorithm, material: bytes, /) -> KeyHandle:
        """Load material that we made and have just authenticated."""
        return self._private(algorithm, material, self._components.load)

    def load_foreign(self, algorithm: Algorithm, material: bytes, /) -> KeyHandle:
        """Load material from elsewhere, both halves fully checked."""
        return self._private(algorithm, material, self._components.load_foreign)

    def load_public(self, algorithm: Algorithm, public_der: bytes, /) -> KeyHandle:
        """Load SubjectPublicKeyInfo, both halves fully checked."""
        first, second = split_public(algorithm, public_der)
        quantum_safe, traditional = spec(algorithm).components
        try:
            halves = (
                self._components.load_public(quantum_safe, first),
                self._components.load_public(traditional, second),
            )
        except InvalidInputError:
            raise not_public_key(algorithm) from None
        if spec(algorithm).is_kem:
            return CompositeKEMPublicHandle(algorithm, *halves, self._components)
        return CompositeSignaturePublicHandle(algorithm, *halves)

    def _private(
        self,
        algorithm: Algorithm,
        material: bytes,
        load: Callable[[Algorithm, bytes], KeyHandle],
    ) -> KeyHandle:
        first, second = split_private(algorithm, material)
        quantum_safe, traditional = spec(algorithm).components
        try:
            halves = load(quantum_safe, first), load(traditional, second)
        except InvalidInputError:
            raise not_material(algorithm) from None
        if spec(algorithm).is_kem:
            return CompositeKEMPrivateHandle(algorithm, *halves, self._components)
        return CompositeSignaturePrivateHandle(algorithm, *halves)
