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

As bytes, a composite is its post-quantum half, whose length is fixed, followed by the
traditional one, under its OID. Component providers use SubjectPublicKeyInfo and PKCS#8,
as for every key. Each half has exactly one form, so a key has exactly one encoding.

Standard:
    draft-ietf-lamps-pq-composite-kem-18 and draft-ietf-lamps-pq-composite-sigs-19,
    sections "Serialization" and "Encoding to DER"; RFC 5915 for the EC private key,
    with parameters and without public key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, cast

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from hsm_core._internal.crypto.der import (
    OCTET_STRING,
    SEQUENCE,
    element,
    not_material,
    not_public_key,
    object_identifier,
    private_key_info,
    read_private_form,
    read_private_key_info,
    read_public_key_info,
    seed_key_info,
    subject_public_key_info,
)
from hsm_core._internal.crypto.handle import BaseHandle
from hsm_core._internal.crypto.parameters import (
    check_encapsulation,
    check_signing,
    check_verifying,
    signature_parameters,
)
from hsm_core._internal.crypto.pyca.encoding import load_private
from hsm_core.algorithms import ALGORITHMS, Algorithm, HashAlgorithm, spec
from hsm_core.errors import DecryptionError, InvalidInputError, SignatureMismatchError
from hsm_core.protocols import Entropy, KeyHandle, SignatureParameters

if TYPE_CHECKING:
    from hsm_core._internal.crypto.registry import CryptoRegistry

_VERSION_1: Final = b"\x02\x01\x01"
_PARAMETERS: Final = 0xA0


def join_public(algorithm: Algorithm, first: bytes, second: bytes) -> bytes:
    """Return SubjectPublicKeyInfo of a composite of two SubjectPublicKeyInfo."""
    quantum_safe, traditional = spec(algorithm).components
    raw = read_public_key_info(quantum_safe, first) + traditional_raw(
        traditional, second
    )
    return subject_public_key_info(algorithm, raw)


def split_public(algorithm: Algorithm, der: bytes) -> tuple[bytes, bytes]:
    """
    Return SubjectPublicKeyInfo of both halves; what they hold is not checked here.

    Raises:
        InvalidInputError: It is not SubjectPublicKeyInfo of this composite.
    """
    raw = read_public_key_info(algorithm, der)
    quantum_safe, traditional = spec(algorithm).components
    size = spec(quantum_safe).public_bytes
    return (
        subject_public_key_info(quantum_safe, raw[:size]),
        subject_public_key_info(traditional, raw[size:]),
    )


def join_private(algorithm: Algorithm, first: bytes, second: bytes) -> bytes:
    """Return PKCS#8 of a composite of two private keys that we made, in PKCS#8."""
    quantum_safe, traditional = spec(algorithm).components
    seed = read_private_form(quantum_safe, first).seed
    half = _half(traditional, _secret(traditional, second))
    return private_key_info(algorithm, seed + half)


def split_private(algorithm: Algorithm, material: bytes) -> tuple[bytes, bytes]:
    """
    Return PKCS#8 of both halves; what they hold is not checked here.

    Raises:
        InvalidInputError: It is not PKCS#8 of this composite.
    """
    octets = read_private_key_info(algorithm, material)
    quantum_safe, traditional = spec(algorithm).components
    size = spec(quantum_safe).private_bytes
    seed, half = octets[:size], octets[size:]
    start = _half(traditional, bytes(spec(traditional).private_bytes)).index(b"\0")
    secret = half[start : start + spec(traditional).private_bytes]
    fits = len(octets) == spec(algorithm).private_bytes
    if not fits or half != _half(traditional, secret):
        raise not_material(algorithm)
    return seed_key_info(quantum_safe, seed), _alone(traditional, secret)


def traditional_raw(algorithm: Algorithm, der: bytes) -> bytes:
    """Return the raw public key of SubjectPublicKeyInfo that a provider wrote."""
    return der[-spec(algorithm).public_bytes :]


def _half(algorithm: Algorithm, secret: bytes) -> bytes:
    """Return the traditional half of a private key: bare, or ECPrivateKey."""
    row = spec(algorithm)
    if not row.curve_oid:
        return secret
    curve = element(_PARAMETERS, object_identifier(row.curve_oid))
    return element(SEQUENCE, _VERSION_1, element(OCTET_STRING, secret), curve)


def _alone(algorithm: Algorithm, secret: bytes) -> bytes:
    """Return PKCS#8 of a traditional key, which names its curve outside."""
    octets = element(OCTET_STRING, secret)
    if spec(algorithm).curve_oid:
        octets = element(SEQUENCE, _VERSION_1, octets)
    return private_key_info(algorithm, octets)


def _secret(algorithm: Algorithm, material: bytes) -> bytes:
    """Return scalar or seed of PKCS#8, whether or not a public key follows it."""
    size = spec(algorithm).private_bytes
    if not spec(algorithm).curve_oid:
        return material[-size:]
    key = load_private(algorithm, material, trusted=True)
    number = cast("EllipticCurvePrivateKey", key).private_numbers().private_value
    return number.to_bytes(size, "big")


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
        components: CryptoRegistry,
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
            agreed = self._traditional.agree(
                subject_public_key_info(self._curve, point)
            )
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
        components: Serves these as guarded handles, so that a component that a
            self-test has stopped gives nothing to a composite either.
    """

    name: Final = "composite"
    """Short name, used in settings."""

    def __init__(self, components: CryptoRegistry) -> None:
        self._components = components

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
