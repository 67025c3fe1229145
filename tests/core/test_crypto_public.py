# SPDX-License-Identifier: MIT
"""Public keys as JWK and bare bytes: another implementation reads the same key."""

from __future__ import annotations

import base64
from collections.abc import Iterator

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_der_public_key,
)

from hsm_core.algorithms import ALGORITHMS, Algorithm
from hsm_core.operations import JSONWebKey, PublicKey
from hsm_core.session import Session
from hsm_core.testing import memory_hsm
from tests.core.hsm_support import WRAP, Outside, require_algorithm, session_of

A = Algorithm
CURVES = {
    "P-256": ec.SECP256R1(),
    "P-384": ec.SECP384R1(),
    "P-521": ec.SECP521R1(),
    "secp256k1": ec.SECP256K1(),
}
LOADERS = {
    "Ed25519": ed25519.Ed25519PublicKey.from_public_bytes,
    "Ed448": ed448.Ed448PublicKey.from_public_bytes,
    "X25519": x25519.X25519PublicKey.from_public_bytes,
}
NAMES = {
    **{A.RSA_2048: ("RSA", ""), A.EC_P256: ("EC", "P-256"), A.EC_P384: ("EC", "P-384")},
    **{A.EC_P521: ("EC", "P-521"), A.EC_SECP256K1: ("EC", "secp256k1")},
    **{a: ("OKP", a.value) for a in (A.ED25519, A.ED448, A.X25519)},
}
"""Type and curve by algorithm (RFC 7518, 8037, 8812)."""


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    """Give one HSM for all tests of this module."""
    with memory_hsm() as gateway:
        yield session_of(gateway)


def made(session: Session, algorithm: Algorithm) -> PublicKey:
    """Make a key, and return its public half."""
    require_algorithm(session, algorithm)
    return session.public_key(session.create_key(algorithm).key_id)


def decoded(text: str) -> bytes:
    """Return the bytes of base64url without padding."""
    assert "=" not in text
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def read(jwk: JSONWebKey) -> object:
    """Return the key that a JWK holds, with no more and no fewer bytes than it must."""
    if jwk.kty == "RSA":
        exponent, modulus = decoded(jwk.e), decoded(jwk.n)
        assert 0 not in {exponent[0], modulus[0]}
        numbers = (int.from_bytes(part, "big") for part in (exponent, modulus))
        return rsa.RSAPublicNumbers(*numbers).public_key()
    if jwk.kty == "OKP":
        return LOADERS[jwk.crv](decoded(jwk.x))
    x, y, curve = decoded(jwk.x), decoded(jwk.y), CURVES[jwk.crv]
    assert len(x) == len(y) == -(-curve.key_size // 8)
    return ec.EllipticCurvePublicKey.from_encoded_point(curve, b"\x04" + x + y)


@pytest.mark.parametrize("algorithm", NAMES)
def test_jwk(session: Session, algorithm: Algorithm) -> None:
    """It names type and curve, and holds the key that DER and the bare bytes hold."""
    public = made(session, algorithm)

    assert public.jwk is not None
    assert NAMES[algorithm] == (public.jwk.kty, public.jwk.crv)
    assert load_der_public_key(public.der) == read(public.jwk)
    assert ALGORITHMS[algorithm].public_bytes == len(public.raw)
    if public.jwk.kty == "EC":
        assert b"\x04" + decoded(public.jwk.x) + decoded(public.jwk.y) == public.raw


def test_short_coordinate(session: Session) -> None:
    """A coordinate that begins with a zero byte keeps it."""
    keys = (ec.derive_private_key(n, CURVES["P-256"]) for n in range(1, 2000))
    key = next(k for k in keys if k.public_key().public_numbers().x.bit_length() <= 248)
    outside = Outside(session, session.create_key("ML-KEM-1024", usages=WRAP).key_id)
    material = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())

    jwk = session.public_key(outside.imports("p256", material)).jwk

    assert jwk is not None
    assert key.public_key() == read(jwk)


@pytest.mark.parametrize("algorithm", [A.ML_DSA_44, A.ML_DSA_65, A.ML_DSA_87])
def test_ml_dsa(session: Session, algorithm: Algorithm) -> None:
    """An ML-DSA key is an algorithm key pair, which names its algorithm (RFC 9964)."""
    public = made(session, algorithm)

    assert public.jwk is not None
    assert ("AKP", algorithm, "") == (public.jwk.kty, public.jwk.alg, public.jwk.crv)
    assert public.raw == decoded(public.jwk.pub)
    assert ALGORITHMS[algorithm].public_bytes == len(public.raw)


@pytest.mark.parametrize(
    "algorithm",
    [
        *(A.ML_KEM_512, A.SLH_DSA_SHA2_128F),
        *(A.MLKEM768_ECDH_P256_SHA3_256, A.MLDSA65_ED25519_SHA512),
    ],
)
def test_no_jwk(session: Session, algorithm: Algorithm) -> None:
    """An algorithm that no RFC gives a JWK has none."""
    assert made(session, algorithm).jwk is None
