# SPDX-License-Identifier: MIT
"""Public keys in the other usual forms: PEM and JWK."""

from __future__ import annotations

import base64
import textwrap
from typing import Final, cast

from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from hsm_core._internal.crypto.pyca.encoding import load_public
from hsm_core.algorithms import Algorithm, spec
from hsm_core.errors import UnsupportedOperationError
from hsm_core.model import KeyId
from hsm_core.operations import JSONWebKey

__all__ = ["json_web_key", "public_pem"]

_CURVE_NAMES: Final = {
    Algorithm.EC_P256: "P-256",
    Algorithm.EC_P384: "P-384",
    Algorithm.EC_P521: "P-521",
}


def public_pem(der: bytes) -> str:
    """
    Return SubjectPublicKeyInfo as PEM.

    Standard:
        RFC 7468, section 13.
    """
    body = "\n".join(textwrap.wrap(base64.b64encode(der).decode(), 64))
    return f"-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----\n"


def json_web_key(
    key_id: KeyId, version: int, algorithm: Algorithm, der: bytes
) -> JSONWebKey:
    """
    Return a public key as JWK; its ``kid`` is ``<key id>.<version>``.

    Args:
        key_id: First half of ``kid``.

        version: Second half of ``kid``.

        algorithm: What *der* is a key of.

        der: SubjectPublicKeyInfo that a provider wrote.

    Raises:
        UnsupportedOperationError: The algorithm has no public keys.
        InvalidInputError: *der* is not one of this algorithm.

    Standard:
        RFC 7517; RFC 7518, sections 6.2 and 6.3; RFC 8037, section 2.
    """
    if not spec(algorithm).is_asymmetric:
        raise UnsupportedOperationError(
            f"{algorithm} has no public keys.", algorithm=algorithm.value
        )
    kid = f"{key_id}.{version}"
    key = load_public(algorithm, der)
    if isinstance(key, RSAPublicKey):
        numbers = key.public_numbers()
        return JSONWebKey(
            kty="RSA", kid=kid, n=_unsigned(numbers.n), e=_unsigned(numbers.e)
        )
    if isinstance(key, EllipticCurvePublicKey):
        point = key.public_numbers()
        size = spec(algorithm).coordinate_bytes
        return JSONWebKey(
            kty="EC",
            kid=kid,
            crv=_CURVE_NAMES[algorithm],
            x=_base64url(point.x.to_bytes(size, "big")),
            y=_base64url(point.y.to_bytes(size, "big")),
        )
    raw = cast("Ed25519PublicKey", key).public_bytes_raw()
    return JSONWebKey(kty="OKP", kid=kid, crv="Ed25519", x=_base64url(raw))


def _unsigned(number: int) -> str:
    """Return Base64urlUInt (RFC 7518, section 2): no leading zero byte."""
    return _base64url(number.to_bytes((number.bit_length() + 7) // 8, "big"))


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
