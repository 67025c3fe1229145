# SPDX-License-Identifier: MIT
"""
Composite keys as bytes: two halves under one OID.

A composite is raw bytes under its OID: the post-quantum half, whose length is fixed,
followed by the traditional one. Component providers use SubjectPublicKeyInfo and
PKCS#8, as for every key; this module converts between the two. Each half has exactly
one form, so a key has exactly one encoding.

Standard:
    draft-ietf-lamps-pq-composite-kem-18 and draft-ietf-lamps-pq-composite-sigs-19,
    sections "Serialization" and "Encoding to DER"; RFC 5915 for the EC private key,
    with parameters and without public key.
"""

from __future__ import annotations

from typing import Final, Protocol, cast

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from hsm_core._internal.crypto.der import (
    OCTET_STRING,
    SEQUENCE,
    element,
    not_material,
    object_identifier,
    private_key_info,
    read_private_form,
    read_private_key_info,
    read_public_key_info,
    seed_key_info,
    subject_public_key_info,
)
from hsm_core._internal.crypto.pyca.encoding import load_private
from hsm_core.algorithms import Algorithm, spec
from hsm_core.protocols import KeyHandle

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
        traditional_der(traditional, raw[size:]),
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


def traditional_der(algorithm: Algorithm, raw: bytes) -> bytes:
    """Return SubjectPublicKeyInfo of a traditional half's raw public key."""
    return subject_public_key_info(algorithm, raw)


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


class MadeKey(Protocol):
    """A new key of a component."""

    @property
    def material(self) -> bytes:
        """PKCS#8, DER."""
        ...


class Components(Protocol):
    """
    Registry of the providers of components; its handles are guarded.

    So a component that a self-test has stopped gives nothing to a composite either.
    """

    def generate(self, algorithm: Algorithm, /) -> MadeKey:
        """Make a key and test that its halves belong together."""
        ...

    def generate_ephemeral(self, algorithm: Algorithm, /) -> KeyHandle:
        """Make a key for one agreement, which is never stored."""
        ...

    def load(self, algorithm: Algorithm, material: bytes, /) -> KeyHandle:
        """Load material that we made and have just authenticated."""
        ...

    def load_foreign(self, algorithm: Algorithm, material: bytes, /) -> KeyHandle:
        """Load material from elsewhere, fully checked."""
        ...

    def load_public(self, algorithm: Algorithm, der: bytes, /) -> KeyHandle:
        """Load SubjectPublicKeyInfo, fully checked."""
        ...
