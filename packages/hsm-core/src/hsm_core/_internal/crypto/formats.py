# SPDX-License-Identifier: MIT
"""
Forms that a private key travels in, and the one form that is kept.

Kept is PKCS#8 DER as `CryptoProvider` says, or the bare symmetric key. What comes from
elsewhere may carry attributes, or an expanded key beside its seed; these are left out.
"""

from __future__ import annotations

from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec

from hsm_core._internal.crypto.der import (
    private_key_info,
    read_private_form,
    read_private_key_info,
    seed_key_info,
)
from hsm_core._internal.crypto.expanded import read_foreign_form
from hsm_core._internal.crypto.pyca.encoding import load_private, private_der
from hsm_core.algorithms import Algorithm, AlgorithmSpec, Family, KeyFormat, spec
from hsm_core.errors import (
    InputSizeError,
    InvalidInputError,
    UnsupportedOperationError,
)

_ASKED: Final = {
    Family.RSA: "The modulus must have exactly {0.modulus_bits} bits and two prime "
    "factors of half that length, neither close together nor of ROCA's form "
    "(CVE-2017-15361); the public exponent must be 65537, and all numbers must be "
    "consistent.",
    Family.ECDSA: "The key must name its curve, and its public point must match its "
    "private number.",
    Family.COMPOSITE_KEM: "A composite key must contain both halves.",
    Family.COMPOSITE_SIGNATURE: "A composite key must contain both halves.",
}
"""What a private key from elsewhere must have, where it isn't plain."""

_SEEDED: Final = frozenset({Family.ML_KEM, Family.ML_DSA})
_SECRET_LAST: Final = _SEEDED | {
    *(Family.AEAD, Family.MAC, Family.KEY_WRAP, Family.KDF),
    *(Family.EDDSA, Family.ECDH),
}
"""Families whose kept form is the secret, or ends with it."""


def check_format(row: AlgorithmSpec, format: KeyFormat | None) -> KeyFormat:
    """
    Return *format*, or the usual one of an algorithm.

    Raises:
        UnsupportedOperationError: Keys of the algorithm have no such form.
    """
    offered = [KeyFormat.PKCS8 if row.is_asymmetric else KeyFormat.RAW]
    if row.family in _SEEDED:
        offered.append(KeyFormat.SEED)
    if format is not None and format not in offered:
        raise UnsupportedOperationError(
            f"format: {row.algorithm} keys must be {' or '.join(offered)}.",
            algorithm=row.algorithm.value,
            field="format",
        )
    return format or offered[0]


def shown_form(algorithm: Algorithm, format: KeyFormat, material: bytes) -> bytes:
    """
    Return material that is kept in the form that it leaves in.

    Raises:
        UnsupportedOperationError: A seed is asked for, and the key was made without.
    """
    if format is not KeyFormat.SEED:
        return material
    seed = read_private_form(algorithm, material).seed
    if not seed:
        raise UnsupportedOperationError(
            f"format: this {algorithm} key has no seed; export it as "
            f"{KeyFormat.PKCS8}.",
            algorithm=algorithm.value,
            field="format",
        )
    return seed


def usable_form(algorithm: Algorithm, format: KeyFormat, data: bytes) -> bytes:
    """
    Return data from elsewhere in a form that `CryptoProvider.load_foreign` takes.

    Raises:
        InputSizeError: A seed or a symmetric key is of another length.
    """
    row = spec(algorithm)
    if format is KeyFormat.PKCS8:
        return data
    size = row.private_bytes if format is KeyFormat.SEED else row.key_bytes
    if len(data) != size:
        raise InputSizeError("material", actual=len(data), minimum=size, maximum=size)
    return seed_key_info(algorithm, data) if format is KeyFormat.SEED else data


def explained(algorithm: Algorithm, refusal: InvalidInputError) -> InvalidInputError:
    """Return the refusal of material from elsewhere, with what is asked of it."""
    row = spec(algorithm)
    if isinstance(refusal, InputSizeError) or row.family not in _ASKED:
        return refusal
    asked = _ASKED[row.family].format(row)
    return InvalidInputError(f"{refusal} {asked}", **refusal.facts)


def check_random(algorithm: Algorithm, kept: bytes) -> None:
    """
    Check that no secret is a constant, such as one byte repeated.

    Args:
        algorithm: Of the key.

        kept: What `kept_form` returned.

    Raises:
        InvalidInputError: One is: a key, a seed, a half of an ML-KEM seed, or the
            scalar of an elliptic curve, which is not ±1 or ±2 either.
    """
    row = spec(algorithm)
    secret = kept[-(row.key_bytes or row.private_bytes) :]
    parts: list[bytes] = []
    if row.family in _SECRET_LAST:
        parts = [secret[:32], secret[32:]] if row.family is Family.ML_KEM else [secret]
    key = load_private(algorithm, kept, trusted=True) if row.curve_oid else None
    is_known = False
    if isinstance(key, ec.EllipticCurvePrivateKey):
        scalar = key.private_numbers().private_value
        parts = [scalar.to_bytes(row.coordinate_bytes).lstrip(b"\0")]
        small = (ec.derive_private_key(n, key.curve).public_key() for n in (1, 2))
        x = key.public_key().public_numbers().x
        is_known = x in {public.public_numbers().x for public in small}
    if is_known or any(len(set(part)) == 1 for part in parts):
        raise InvalidInputError(
            f"material of {algorithm} is a constant, such as one byte repeated; a key "
            "must be random.",
            field="material",
            algorithm=algorithm.value,
        )


def kept_form(algorithm: Algorithm, material: bytes) -> bytes:
    """Return material that `CryptoProvider.load_foreign` took in the form to keep."""
    row = spec(algorithm)
    if not row.is_asymmetric:
        return material
    if row.family in _SEEDED:
        return seed_key_info(algorithm, read_foreign_form(algorithm, material).seed)
    if row.is_pqc:
        octets = read_private_key_info(algorithm, material)
        return private_key_info(algorithm, octets)
    return private_der(load_private(algorithm, material, trusted=True))
