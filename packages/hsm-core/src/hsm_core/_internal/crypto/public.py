# SPDX-License-Identifier: MIT
"""Public keys in the other usual forms: PEM, JWK and bare bytes."""

from __future__ import annotations

import base64
import textwrap

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from hsm_core._internal.crypto.der import read_public_key_info
from hsm_core._internal.crypto.pyca.encoding import load_public, not_public_key
from hsm_core.algorithms import Algorithm, Family, spec
from hsm_core.errors import UnsupportedOperationError
from hsm_core.model import KeyId
from hsm_core.operations import JSONWebKey


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
