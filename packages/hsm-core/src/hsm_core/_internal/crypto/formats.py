# SPDX-License-Identifier: MIT
"""
Formats of keys for import and export, and the one stored format.

Stored is PKCS#8 DER (see `CryptoProvider`), or the bare symmetric key. Imported keys
may carry attributes, or an expanded key beside the seed; these are dropped. Public keys
are exported as PEM, JWK and bare bytes too.
"""

from __future__ import annotations

import base64
import textwrap
from typing import Final

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from hsm_core._internal.crypto.der import (
    bad_material,
    not_public_key,
    private_key_info,
    read_private_form,
    read_private_key_info,
    read_public_key_info,
    seed_key_info,
)
from hsm_core._internal.crypto.expanded import read_seeded_form
from hsm_core._internal.crypto.pyca.encoding import (
    load_private,
    load_public,
    private_der,
)
from hsm_core.algorithms import Algorithm, AlgorithmSpec, Family, KeyFormat, spec
from hsm_core.errors import InputSizeError, InvalidInputError, UnsupportedOperationError
from hsm_core.model import KeyId
from hsm_core.operations import JSONWebKey

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
    *(Family.AEAD, Family.AES, Family.MAC, Family.KEY_WRAP, Family.KDF),
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
        raise bad_material(
            algorithm,
            "is a constant, such as one byte repeated; a key must be random",
        )


def kept_form(algorithm: Algorithm, material: bytes) -> bytes:
    """Return material that `CryptoProvider.load_foreign` took in the form to keep."""
    row = spec(algorithm)
    if not row.is_asymmetric:
        return material
    if row.family in _SEEDED:
        return seed_key_info(algorithm, read_seeded_form(algorithm, material).seed)
    if row.is_pqc:
        octets = read_private_key_info(algorithm, material)
        return private_key_info(algorithm, octets)
    return private_der(load_private(algorithm, material, trusted=True))


def public_pem(der: bytes) -> str:
    """
    Return SubjectPublicKeyInfo as PEM.

    Standard:
        RFC 7468, section 13.
    """
    body = "\n".join(textwrap.wrap(base64.b64encode(der).decode(), 64))
    return f"-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n"


def raw_public_key(algorithm: Algorithm, der: bytes) -> bytes:
    """
    Return the bare public key: what the bit string of SubjectPublicKeyInfo holds.

    Args:
        algorithm: What *der* is a key of.

        der: SubjectPublicKeyInfo that a provider wrote.

    Returns:
        For EC the uncompressed point (SEC 1, section 2.3.3); empty for RSA, whose
        numbers have no bare form.

    Raises:
        UnsupportedOperationError: The algorithm has no public keys.
        InvalidInputError: *der* is not one of this algorithm.
    """
    row = spec(algorithm)
    if not row.is_asymmetric:
        raise UnsupportedOperationError(
            f"{algorithm} has no public keys.", algorithm=algorithm.value
        )
    if row.public_bytes and not row.curve_oid:
        return read_public_key_info(algorithm, der)
    load_public(algorithm, der)
    return der[-row.public_bytes :] if row.public_bytes else b""


def json_web_key(
    key_id: KeyId, version: int, algorithm: Algorithm, der: bytes
) -> JSONWebKey | None:
    """
    Return a public key as JWK; its ``kid`` is ``<key id>.<version>``.

    Args:
        key_id: First half of ``kid``.

        version: Second half of ``kid``.

        algorithm: What *der* is a key of.

        der: SubjectPublicKeyInfo that a provider wrote.

    Returns:
        None for ML-KEM, SLH-DSA and composites, which no RFC gives a JWK.

    Raises:
        UnsupportedOperationError: The algorithm has no public keys.
        InvalidInputError: *der* is not one of this algorithm.

    Standard:
        RFC 7517; RFC 7518, sections 6.2 and 6.3; RFC 8037, section 2; RFC 8812,
        section 3.1; RFC 9964, section 3.
    """
    raw = raw_public_key(algorithm, der)
    kid, row = f"{key_id}.{version}", spec(algorithm)
    family = row.family
    if family is Family.RSA:
        key = load_public(algorithm, der)
        if not isinstance(key, RSAPublicKey):
            raise not_public_key(algorithm)
        numbers = key.public_numbers()
        return JSONWebKey(
            kty="RSA", kid=kid, n=_unsigned(numbers.n), e=_unsigned(numbers.e)
        )
    if row.curve_oid:
        size = row.coordinate_bytes
        return JSONWebKey(
            kty="EC",
            kid=kid,
            crv=row.jwk_curve,
            x=_base64url(raw[1 : 1 + size]),
            y=_base64url(raw[1 + size :]),
        )
    if row.jwk_curve:
        return JSONWebKey(kty="OKP", kid=kid, crv=row.jwk_curve, x=_base64url(raw))
    if family is Family.ML_DSA:
        return JSONWebKey(kty="AKP", kid=kid, alg=algorithm.value, pub=_base64url(raw))
    return None


def _unsigned(number: int) -> str:
    """Return Base64urlUInt (RFC 7518, section 2): no leading zero byte."""
    return _base64url(number.to_bytes((number.bit_length() + 7) // 8, "big"))


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
