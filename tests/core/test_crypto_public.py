# SPDX-License-Identifier: MIT
"""Public keys as PEM and JWK."""

from __future__ import annotations

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)

from hsm_core._internal.crypto.public import json_web_key, public_pem
from hsm_core.algorithms import Algorithm
from hsm_core.errors import InvalidInputError, UnsupportedOperationError
from hsm_core.model import KeyId
from tests.core.crypto_samples import ASYMMETRIC, RSA, public_der

KEY_ID = KeyId("3f0c7e0e-0d3b-4c43-9b7a-2f5b8f1f7c11")


def decoded(text: str) -> bytes:
    """Return the bytes of base64url without padding."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


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
        jwk = json_web_key(KEY_ID, 3, algorithm, public_der(algorithm))
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
        ],
    )
    def test_ec(
        self, algorithm: Algorithm, curve: ec.EllipticCurve, name: str, size: int
    ) -> None:
        """
        An EC key has both coordinates at the curve's full length.
        """
        jwk = json_web_key(KEY_ID, 1, algorithm, public_der(algorithm))
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

        assert 32 == len(decoded(json_web_key(KEY_ID, 1, Algorithm.EC_P256, der).x))

    def test_ed25519(self) -> None:
        """
        An Ed25519 key is an octet key pair (RFC 8037).
        """
        algorithm = Algorithm.ED25519
        jwk = json_web_key(KEY_ID, 1, algorithm, public_der(algorithm))
        key = ed25519.Ed25519PublicKey.from_public_bytes(decoded(jwk.x))

        assert ("OKP", "Ed25519") == (jwk.kty, jwk.crv)
        assert load_der_public_key(public_der(algorithm)) == key

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
