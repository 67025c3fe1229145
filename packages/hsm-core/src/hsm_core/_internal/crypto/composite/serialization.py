# SPDX-License-Identifier: MIT
"""
How a composite's two halves become one key, and how they come apart again.

A composite is raw bytes under its OID: the post-quantum half, whose length is fixed,
followed by the traditional one. Its components are served as SubjectPublicKeyInfo and
PKCS#8, like every key; here is the way from one to the other. Each half has exactly
one form, so a key has exactly one encoding.

Standard:
    draft-ietf-lamps-pq-composite-kem-18 and draft-ietf-lamps-pq-composite-sigs-19,
    sections "Serialization" and "Encoding to DER"; RFC 5915 for the EC private key,
    with parameters and without public key.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, cast

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey

from hsm_core._internal.crypto.der import (
    private_key_info,
    read_private_form,
    read_private_key_info,
    read_public_key_info,
    seed_key_info,
    subject_public_key_info,
)
from hsm_core._internal.crypto.pyca.encoding import load_private, not_material
from hsm_core.algorithms import Algorithm, spec

__all__ = [
    "join_private",
    "join_public",
    "split_private",
    "split_public",
    "traditional_der",
    "traditional_raw",
]


@dataclass(frozen=True, slots=True)
class _Form:
    """
    Constant bytes round a traditional key.

    Attributes:
        public: Before the raw public key, in SubjectPublicKeyInfo.
        private: Before the secret, in PKCS#8.
        start: Before the secret, in a composite.
        end: After it, in a composite.
    """

    public: bytes
    private: bytes
    start: bytes = b""
    end: bytes = b""


_FORMS: Final = {
    Algorithm.EC_P256: _Form(
        bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200"),
        bytes.fromhex(
            "3041020100301306072a8648ce3d020106082a8648ce3d030107042730250201010420"
        ),
        bytes.fromhex("30310201010420"),
        bytes.fromhex("a00a06082a8648ce3d030107"),
    ),
    Algorithm.EC_P384: _Form(
        bytes.fromhex("3076301006072a8648ce3d020106052b81040022036200"),
        bytes.fromhex(
            "304e020100301006072a8648ce3d020106052b81040022043730350201010430"
        ),
        bytes.fromhex("303e0201010430"),
        bytes.fromhex("a00706052b81040022"),
    ),
    Algorithm.ED25519: _Form(
        bytes.fromhex("302a300506032b6570032100"),
        bytes.fromhex("302e020100300506032b657004220420"),
    ),
    Algorithm.X25519: _Form(
        bytes.fromhex("302a300506032b656e032100"),
        bytes.fromhex("302e020100300506032b656e04220420"),
    ),
}


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
    form = _FORMS[traditional]
    octets = (
        read_private_form(quantum_safe, first).seed
        + form.start
        + _secret(traditional, second)
        + form.end
    )
    return private_key_info(algorithm, octets)


def split_private(algorithm: Algorithm, material: bytes) -> tuple[bytes, bytes]:
    """
    Return PKCS#8 of both halves; what they hold is not checked here.

    Raises:
        InvalidInputError: It is not PKCS#8 of this composite.
    """
    octets = read_private_key_info(algorithm, material)
    quantum_safe, traditional = spec(algorithm).components
    form, size = _FORMS[traditional], spec(quantum_safe).private_bytes
    seed, rest = octets[:size], octets[size:]
    start = len(form.start)
    secret = rest[start : start + spec(traditional).private_bytes]
    fits = len(octets) == spec(algorithm).private_bytes
    if not fits or rest != form.start + secret + form.end:
        raise not_material(algorithm)
    return seed_key_info(quantum_safe, seed), form.private + secret


def traditional_der(algorithm: Algorithm, raw: bytes) -> bytes:
    """Return SubjectPublicKeyInfo of a traditional half's raw public key."""
    return _FORMS[algorithm].public + raw


def traditional_raw(algorithm: Algorithm, der: bytes) -> bytes:
    """Return the raw public key of SubjectPublicKeyInfo that a provider wrote."""
    return der[len(_FORMS[algorithm].public) :]


def _secret(algorithm: Algorithm, material: bytes) -> bytes:
    """Return scalar or seed of PKCS#8, whether or not a public key follows it."""
    size = spec(algorithm).private_bytes
    if not spec(algorithm).coordinate_bytes:
        return material[len(_FORMS[algorithm].private) :]
    key = load_private(algorithm, material, trusted=True)
    number = cast("EllipticCurvePrivateKey", key).private_numbers().private_value
    return number.to_bytes(size, "big")
