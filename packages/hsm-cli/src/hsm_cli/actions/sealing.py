# SPDX-License-Identifier: MIT
"""Offline sealing of messages to the public key of a KEM key."""

from __future__ import annotations

from cryptography.hazmat import asn1
from cryptography.x509 import ObjectIdentifier

from hsm_cli.io.files import Source, decode_pem
from hsm_core import primitives
from hsm_core.algorithms import ALGORITHMS, Algorithm
from hsm_core.errors import InvalidInputError
from hsm_core.model import KeyId
from hsm_core.operations import Ciphertext


@asn1.sequence
class _Identifier:
    algorithm: ObjectIdentifier


@asn1.sequence
class _SubjectPublicKeyInfo:
    algorithm: _Identifier
    key: asn1.BitString


def read_public_key(source: Source) -> tuple[Algorithm, bytes]:
    """
    Return the algorithm of a KEM public key, and the key in DER.

    Raises:
        InvalidInputError: The file is not a SubjectPublicKeyInfo of a KEM key.
    """
    der = decode_pem(source.read(), "PUBLIC KEY")
    try:
        oid = asn1.decode_der(_SubjectPublicKeyInfo, der).algorithm.algorithm
    except ValueError:
        raise _no_public_key() from None
    for algorithm, row in ALGORITHMS.items():
        if row.is_kem and row.oid == oid.dotted_string:
            return algorithm, der
    raise _no_public_key()


def seal_offline(
    algorithm: Algorithm,
    public_der: bytes,
    key_id: str,
    version: int,
    plaintext: bytes,
    aad: bytes,
) -> Ciphertext:
    """
    Seal a message as the HSM's operation Seal does.

    Raises:
        InvalidInputError: The key ID is not a UUID, or the public key is invalid.
    """
    ciphertext = primitives.seal(algorithm, public_der, key_id, version, plaintext, aad)
    return Ciphertext(key_id=KeyId(key_id), version=version, ciphertext=ciphertext)


def _no_public_key() -> InvalidInputError:
    return InvalidInputError(
        "The file is not a public key of ML-KEM or of an ML-KEM composite.",
        field="public_key",
    )
