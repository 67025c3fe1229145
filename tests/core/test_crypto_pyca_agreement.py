# SPDX-License-Identifier: MIT
"""Key agreement of the provider over cryptography."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
)

from hsm_core._internal.crypto.der import subject_public_key_info
from hsm_core._internal.lib.entropy import SystemEntropy
from hsm_core.algorithms import ALGORITHMS, Algorithm, Family, KeyUsage
from hsm_core.errors import InvalidInputError, UnsupportedOperationError
from tests.core.crypto_samples import ASYMMETRIC, PYCA, material, public_der

AGREEING = [
    row.algorithm
    for row in ALGORITHMS.values()
    if row.is_asymmetric and KeyUsage.DERIVE in row.usages
]

LOW_ORDER = [
    "00" * 32,
    "01" + "00" * 31,
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]
"""Points of Curve25519 whose multiples by any private key are zero."""


@pytest.mark.parametrize("algorithm", AGREEING)
def test_both_sides_agree(algorithm: Algorithm) -> None:
    """Two parties compute one secret, of the length in the table."""
    theirs = PYCA.load(algorithm, PYCA.generate(algorithm, SystemEntropy()))
    ours = PYCA.load(algorithm, material(algorithm))

    secret = ours.agree(theirs.public_der())

    assert theirs.agree(ours.public_der()) == secret
    assert ALGORITHMS[algorithm].shared_secret_bytes == len(secret)


@pytest.mark.parametrize("algorithm", [a for a in AGREEING if ALGORITHMS[a].curve_oid])
def test_secret_is_the_coordinate(algorithm: Algorithm) -> None:
    """The secret is the x coordinate of the shared point, with its leading zeros."""
    one = load_der_private_key(material(algorithm), None)
    assert isinstance(one, ec.EllipticCurvePrivateKey)
    base = ec.derive_private_key(1, one.curve).public_key()
    der = base.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    x = one.public_key().public_numbers().x

    secret = PYCA.load(algorithm, material(algorithm)).agree(der)

    assert x.to_bytes(ALGORITHMS[algorithm].coordinate_bytes, "big") == secret


@pytest.mark.parametrize("algorithm", AGREEING)
@pytest.mark.parametrize("other", ASYMMETRIC)
def test_other_algorithm(algorithm: Algorithm, other: Algorithm) -> None:
    """A public key of another curve or algorithm is refused, by name of the field."""
    if other is algorithm:
        return
    handle = PYCA.load(algorithm, material(algorithm))

    with pytest.raises(InvalidInputError) as caught:
        handle.agree(public_der(other))

    assert "peer_public_key" == caught.value.facts["field"]


@pytest.mark.parametrize("algorithm", [Algorithm.EC_P256, Algorithm.EC_P384])
def test_bad_points(algorithm: Algorithm) -> None:
    """Points off the curve, at infinity and compressed ones are refused."""
    good = public_der(algorithm)
    key = load_der_public_key(good)
    assert isinstance(key, ec.EllipticCurvePublicKey)
    size = ALGORITHMS[algorithm].coordinate_bytes
    compressed = key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
    head = good[: -2 * size - 1]
    handle = PYCA.load(algorithm, material(algorithm))
    for wrong in (
        head + b"\4" + bytes(2 * size),
        good[:-1] + bytes([good[-1] ^ 1]),
        head + b"\0",
        head + compressed,
        good[:-1],
        good + b"\0",
        b"",
    ):
        with pytest.raises(InvalidInputError) as caught:
            handle.agree(wrong)
        assert "peer_public_key" == caught.value.facts["field"]


@pytest.mark.parametrize("point", LOW_ORDER)
def test_zero_secret(point: str) -> None:
    """A peer of low order, with whom the secret would be zero, is refused."""
    der = subject_public_key_info(Algorithm.X25519, bytes.fromhex(point))
    handle = PYCA.load(Algorithm.X25519, material(Algorithm.X25519))

    with pytest.raises(InvalidInputError) as caught:
        handle.agree(der)

    assert "peer_public_key" == caught.value.facts["field"]


@pytest.mark.parametrize("algorithm", sorted(set(ASYMMETRIC) - set(AGREEING)))
def test_others_do_not_agree(algorithm: Algorithm) -> None:
    """Keys that are not for agreement refuse it, P-521 among them."""
    handle = PYCA.load(algorithm, material(algorithm))

    with pytest.raises(UnsupportedOperationError):
        handle.agree(public_der(algorithm))


@pytest.mark.parametrize("algorithm", AGREEING)
def test_public_half(algorithm: Algorithm) -> None:
    """The public half can't agree on anything."""
    handle = PYCA.load_public(algorithm, public_der(algorithm))

    with pytest.raises(UnsupportedOperationError):
        handle.agree(public_der(algorithm))


def test_x25519_does_not_sign() -> None:
    """An X25519 key has no signature."""
    assert Family.ECDH is ALGORITHMS[Algorithm.X25519].family
    assert not ALGORITHMS[Algorithm.X25519].is_signature
