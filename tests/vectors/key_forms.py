# SPDX-License-Identifier: MIT
"""Keys of published vectors, from bare numbers and bytes to PKCS#8 and SPKI."""

from __future__ import annotations

from functools import cache

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from hsm_core._internal.crypto.der import (
    algorithm_identifier,
    element,
    private_key_info,
)
from hsm_core._internal.crypto.libcrypto import LibcryptoProvider
from hsm_core.algorithms import Algorithm, spec
from tests.support import require_service


def rsa_public_info(modulus: int, exponent: int) -> bytes:
    """Return rsaEncryption SubjectPublicKeyInfo."""
    return (
        RSAPublicNumbers(exponent, modulus)
        .public_key()
        .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    )


def ec_point_info(algorithm: Algorithm, point: bytes) -> bytes:
    """Return SubjectPublicKeyInfo of a point as it is, on the curve or not."""
    return element(0x30, algorithm_identifier(algorithm), element(3, b"\0", point))


def ec_private_info(algorithm: Algorithm, number: int, point: bytes = b"") -> bytes:
    """Return PKCS#8 of a number, with the public point if it is given."""
    size = spec(algorithm).coordinate_bytes
    parts = [b"\2\1\1", element(4, number.to_bytes(size, "big"))]
    if point:
        parts.append(element(0xA1, element(3, b"\0", point)))
    return element(
        0x30,
        *(b"\2\1\0", algorithm_identifier(algorithm)),
        element(4, element(0x30, *parts)),
    )


def edwards_private_info(algorithm: Algorithm, secret: bytes) -> bytes:
    """Return PKCS#8 of Ed25519, Ed448 or X25519 (RFC 8410, section 7)."""
    return private_key_info(algorithm, element(4, secret))


def both_key_info(algorithm: Algorithm, seed: bytes, expanded: bytes) -> bytes:
    """Return PKCS#8 of ML-KEM or ML-DSA that holds seed and expanded key."""
    return private_key_info(
        algorithm, element(0x30, element(4, seed), element(4, expanded))
    )


@cache
def libcrypto() -> LibcryptoProvider:
    """Return the provider that has functions for known answers, or skip."""
    provider = LibcryptoProvider()
    require_service("OpenSSL 3.5 or newer as a library", provider.algorithms())
    return provider
