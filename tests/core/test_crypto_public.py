# SPDX-License-Identifier: MIT
"""Public keys as PEM, JWK and bare bytes."""

from __future__ import annotations

import base64
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa, x25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from hsm_core._internal.crypto.der import subject_public_key_info
from hsm_core._internal.crypto.formats import json_web_key, public_pem, raw_public_key
from hsm_core.algorithms import ALGORITHMS, Algorithm
from hsm_core.errors import InvalidInputError, UnsupportedOperationError
from hsm_core.model import KeyId
from hsm_core.operations import JSONWebKey
from tests.core.crypto_samples import ASYMMETRIC, RSA, public_der

KEY_ID = KeyId("3f0c7e0e-0d3b-4c43-9b7a-2f5b8f1f7c11")


def decoded(text: str) -> bytes:
    """Return the bytes of base64url without padding."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def written(
    key_id: KeyId, version: int, algorithm: Algorithm, der: bytes
) -> JSONWebKey:
    """Return the JWK of an algorithm that has one."""
    jwk = json_web_key(key_id, version, algorithm, der)
    assert jwk is not None
    return jwk


class TestPEM:
    @pytest.mark.parametrize("algorithm", ASYMMETRIC)
    def test_as_the_library_writes_it(self, algorithm: Algorithm) -> None:
        """
        The PEM is the one that another implementation writes.
        """
        key = load_der_public_key(public_der(algorithm))
        expected = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

        assert expected.decode() == public_pem(public_der(algorithm))


class TestJSONWebKey:
    @pytest.mark.parametrize("algorithm", RSA)
    def test_rsa(self, algorithm: Algorithm) -> None:
        """
        An RSA key has modulus and exponent, without leading zeros or padding.
        """
        jwk = written(KEY_ID, 3, algorithm, public_der(algorithm))
        key = rsa.RSAPublicNumbers(
            int.from_bytes(decoded(jwk.e), "big"), int.from_bytes(decoded(jwk.n), "big")
        ).public_key()

        assert ("RSA", f"{KEY_ID}.3", "AQAB") == (jwk.kty, jwk.kid, jwk.e)
        assert load_der_public_key(public_der(algorithm)) == key
        assert decoded(jwk.n)[0] >= 0x80
        assert "=" not in jwk.n

    @pytest.mark.parametrize(
        ("algorithm", "curve", "name", "size"),
        [
            (Algorithm.EC_P256, ec.SECP256R1(), "P-256", 32),
            (Algorithm.EC_P384, ec.SECP384R1(), "P-384", 48),
            (Algorithm.EC_P521, ec.SECP521R1(), "P-521", 66),
            (Algorithm.EC_SECP256K1, ec.SECP256K1(), "secp256k1", 32),
        ],
    )
    def test_ec(
        self, algorithm: Algorithm, curve: ec.EllipticCurve, name: str, size: int
    ) -> None:
        """
        An EC key has both coordinates at the curve's full length.
        """
        jwk = written(KEY_ID, 1, algorithm, public_der(algorithm))
        x, y = decoded(jwk.x), decoded(jwk.y)
        point = ec.EllipticCurvePublicKey.from_encoded_point(curve, b"\x04" + x + y)

        assert ("EC", name) == (jwk.kty, jwk.crv)
        assert (size, size) == (len(x), len(y))
        assert load_der_public_key(public_der(algorithm)) == point

    def test_short_coordinate(self) -> None:
        """
        A coordinate that begins with a zero byte keeps it.
        """
        number = next(
            n
            for n in range(1, 2000)
            if ec.derive_private_key(n, ec.SECP256R1())
            .public_key()
            .public_numbers()
            .x.bit_length()
            <= 248
        )
        der = (
            ec.derive_private_key(number, ec.SECP256R1())
            .public_key()
            .public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        )

        assert 32 == len(decoded(written(KEY_ID, 1, Algorithm.EC_P256, der).x))

    @pytest.mark.parametrize(
        ("algorithm", "load"),
        [
            (Algorithm.ED25519, ed25519.Ed25519PublicKey.from_public_bytes),
            (Algorithm.ED448, ed448.Ed448PublicKey.from_public_bytes),
            (Algorithm.X25519, x25519.X25519PublicKey.from_public_bytes),
        ],
    )
    def test_octet_key_pair(
        self, algorithm: Algorithm, load: Callable[[bytes], object]
    ) -> None:
        """
        A key of an Edwards or Montgomery curve is an octet key pair (RFC 8037).
        """
        jwk = written(KEY_ID, 1, algorithm, public_der(algorithm))

        assert ("OKP", algorithm.value) == (jwk.kty, jwk.crv)
        assert load_der_public_key(public_der(algorithm)) == load(decoded(jwk.x))

    @pytest.mark.parametrize(
        "algorithm", [Algorithm.ML_DSA_44, Algorithm.ML_DSA_65, Algorithm.ML_DSA_87]
    )
    def test_ml_dsa(self, algorithm: Algorithm) -> None:
        """
        An ML-DSA key is an algorithm key pair, which names its algorithm (RFC 9964).
        """
        jwk = written(KEY_ID, 1, algorithm, public_der(algorithm))

        assert ("AKP", algorithm.value, "") == (jwk.kty, jwk.alg, jwk.crv)
        assert public_der(algorithm).endswith(decoded(jwk.pub))
        assert ALGORITHMS[algorithm].public_bytes == len(decoded(jwk.pub))

    @pytest.mark.parametrize(
        "algorithm",
        [
            Algorithm.ML_KEM_512,
            Algorithm.SLH_DSA_SHA2_128S,
            Algorithm.MLKEM768_ECDH_P256_SHA3_256,
            Algorithm.MLDSA65_ED25519_SHA512,
        ],
    )
    def test_no_jwk(self, algorithm: Algorithm) -> None:
        """
        An algorithm that no RFC gives a JWK has none.
        """
        raw = bytes(ALGORITHMS[algorithm].public_bytes)
        der = subject_public_key_info(algorithm, raw)

        assert json_web_key(KEY_ID, 1, algorithm, der) is None

    def test_symmetric(self) -> None:
        """
        A symmetric key has no public form.
        """
        with pytest.raises(UnsupportedOperationError):
            json_web_key(KEY_ID, 1, Algorithm.AES_256_GCM, b"")

    def test_other_algorithm(self) -> None:
        """
        A key of another algorithm is refused, not written down under a wrong name.
        """
        der = public_der(Algorithm.EC_P384)

        with pytest.raises(InvalidInputError):
            json_web_key(KEY_ID, 1, Algorithm.EC_P256, der)


class TestRaw:
    @pytest.mark.parametrize("algorithm", ASYMMETRIC)
    def test_is_the_end_of_der(self, algorithm: Algorithm) -> None:
        """
        The bare key is the bit string of SubjectPublicKeyInfo; RSA has none.
        """
        raw = raw_public_key(algorithm, public_der(algorithm))

        assert ALGORITHMS[algorithm].public_bytes == len(raw)
        assert public_der(algorithm).endswith(b"\0" + raw) or algorithm in RSA

    def test_point_is_uncompressed(self) -> None:
        """
        The bare key of an EC key is what another implementation takes for a point.
        """
        der = public_der(Algorithm.EC_P384)
        raw = raw_public_key(Algorithm.EC_P384, der)

        point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP384R1(), raw)
        assert load_der_public_key(der) == point

    @pytest.mark.parametrize("algorithm", ASYMMETRIC)
    def test_other_algorithm(self, algorithm: Algorithm) -> None:
        """
        A key of another algorithm is refused, and one with bytes after it.
        """
        other = next(a for a in ASYMMETRIC if a is not algorithm and a not in RSA)
        if algorithm not in RSA:
            with pytest.raises(InvalidInputError):
                raw_public_key(algorithm, public_der(other))
        with pytest.raises(InvalidInputError):
            raw_public_key(algorithm, public_der(algorithm) + b"\0")

    def test_symmetric(self) -> None:
        """
        A symmetric key has no public form.
        """
        with pytest.raises(UnsupportedOperationError):
            raw_public_key(Algorithm.HKDF_SHA_256, b"")
