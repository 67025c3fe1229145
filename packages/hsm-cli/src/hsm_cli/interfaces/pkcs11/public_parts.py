# SPDX-License-Identifier: MIT
"""Attributes that a public key consists of, and public keys from attributes."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Final

from hsm_cli.interfaces.pkcs11 import constants as ck
from hsm_cli.interfaces.pkcs11.wire import Value
from hsm_core.algorithms import Algorithm, AlgorithmSpec, Family, spec

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurve

    from hsm_cli.interfaces.pkcs11.objects import KeyObject

PUBLIC_PARTS: Final = frozenset(
    {
        ck.CKA_MODULUS,
        ck.CKA_MODULUS_BITS,
        ck.CKA_PUBLIC_EXPONENT,
        ck.CKA_EC_PARAMS,
        ck.CKA_EC_POINT,
        ck.CKA_PARAMETER_SET,
        ck.CKA_VALUE,
        ck.CKA_PUBLIC_KEY_INFO,
    }
)
"""Attributes that `public_part` may know."""

PARAMETER_SETS: Final = {
    Algorithm.ML_KEM_512: ck.CKP_ML_KEM_512,
    Algorithm.ML_KEM_768: ck.CKP_ML_KEM_768,
    Algorithm.ML_KEM_1024: ck.CKP_ML_KEM_1024,
    Algorithm.ML_DSA_44: ck.CKP_ML_DSA_44,
    Algorithm.ML_DSA_65: ck.CKP_ML_DSA_65,
    Algorithm.ML_DSA_87: ck.CKP_ML_DSA_87,
    Algorithm.SLH_DSA_SHA2_128S: ck.CKP_SLH_DSA_SHA2_128S,
    Algorithm.SLH_DSA_SHA2_128F: ck.CKP_SLH_DSA_SHA2_128F,
    Algorithm.SLH_DSA_SHA2_192S: ck.CKP_SLH_DSA_SHA2_192S,
    Algorithm.SLH_DSA_SHA2_192F: ck.CKP_SLH_DSA_SHA2_192F,
    Algorithm.SLH_DSA_SHA2_256S: ck.CKP_SLH_DSA_SHA2_256S,
    Algorithm.SLH_DSA_SHA2_256F: ck.CKP_SLH_DSA_SHA2_256F,
    Algorithm.SLH_DSA_SHAKE_128S: ck.CKP_SLH_DSA_SHAKE_128S,
    Algorithm.SLH_DSA_SHAKE_128F: ck.CKP_SLH_DSA_SHAKE_128F,
    Algorithm.SLH_DSA_SHAKE_192S: ck.CKP_SLH_DSA_SHAKE_192S,
    Algorithm.SLH_DSA_SHAKE_192F: ck.CKP_SLH_DSA_SHAKE_192F,
    Algorithm.SLH_DSA_SHAKE_256S: ck.CKP_SLH_DSA_SHAKE_256S,
    Algorithm.SLH_DSA_SHAKE_256F: ck.CKP_SLH_DSA_SHAKE_256F,
}
"""CKA_PARAMETER_SET by algorithm."""

_ON_CURVES: Final = frozenset({Family.ECDSA, Family.EDDSA, Family.ECDH})
OCTET_STRING: Final = 0x04
"""Tag of an OCTET STRING in DER."""

_OBJECT_IDENTIFIER: Final = 0x06


def public_part(key: KeyObject, kind: int) -> Value | None:
    """Return an attribute that follows from the public key; None if it does not."""
    row = key.spec
    is_public = key.object_class == ck.CKO_PUBLIC_KEY
    if kind == ck.CKA_PUBLIC_KEY_INFO:
        return key.public_key().der
    if kind == ck.CKA_EC_PARAMS and row.family in _ON_CURVES:
        return ec_params(row)
    if kind == ck.CKA_PARAMETER_SET:
        return PARAMETER_SETS.get(row.algorithm)
    if row.family is Family.RSA:
        return _of_rsa(key, kind, is_public=is_public)
    if not is_public:
        return None
    if kind == ck.CKA_EC_POINT and row.family in _ON_CURVES:
        return der(OCTET_STRING, key.public_key().raw)
    if kind == ck.CKA_VALUE and row.algorithm in PARAMETER_SETS:
        return key.public_key().raw
    return None


def _of_rsa(key: KeyObject, kind: int, *, is_public: bool) -> Value | None:
    if kind == ck.CKA_MODULUS_BITS:
        return key.spec.modulus_bits if is_public else None
    jwk = key.public_key().jwk
    if jwk is None:
        return None
    if kind == ck.CKA_MODULUS:
        return _decoded(jwk.n)
    if kind == ck.CKA_PUBLIC_EXPONENT:
        return _decoded(jwk.e)
    return None


def ec_params(row: AlgorithmSpec) -> bytes:
    """Return CKA_EC_PARAMS: the object identifier of a curve, DER."""
    return der(_OBJECT_IDENTIFIER, _oid_bytes(row.curve_oid or row.oid))


def curve_of(algorithm: Algorithm) -> EllipticCurve:
    """Return the curve of an algorithm of ECDSA and ECDH."""
    # They load all of the cryptography.
    from cryptography.hazmat.primitives.asymmetric.ec import get_curve_for_oid
    from cryptography.x509 import ObjectIdentifier

    return get_curve_for_oid(ObjectIdentifier(spec(algorithm).curve_oid))()


def der(tag: int, data: bytes) -> bytes:
    """Return a DER element."""
    size = len(data)
    if size < 0x80:
        return bytes((tag, size)) + data
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(length))) + length + data


def _oid_bytes(text: str) -> bytes:
    first, second, *rest = map(int, text.split("."))
    out = bytearray()
    for arc in (40 * first + second, *rest):
        part = [arc & 0x7F]
        while arc := arc >> 7:
            part.append(0x80 | arc & 0x7F)
        out += bytes(reversed(part))
    return bytes(out)


def _decoded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
