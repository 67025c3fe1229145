# SPDX-License-Identifier: MIT
"""What a provider takes for a key, and what it refuses."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
    load_der_public_key,
)
from hypothesis import given
from hypothesis import strategies as st

from hsm_core._internal.lib.entropy import SystemEntropy
from hsm_core.algorithms import ALGORITHMS, Algorithm, Family
from hsm_core.errors import InvalidInputError, UnsupportedOperationError
from hsm_core.protocols import CryptoProvider
from tests.core.crypto_samples import (
    ASYMMETRIC,
    PYCA,
    RSA,
    SERVED,
    material,
    public_der,
)

OTHERS = [
    (wanted, given_)
    for wanted in map(ALGORITHMS.__getitem__, SERVED)
    for given_ in map(ALGORITHMS.__getitem__, SERVED)
    if wanted is not given_
    and not (wanted.key_bytes and wanted.key_bytes == given_.key_bytes)
    and not (wanted.key_bytes == 48 and given_.family in {Family.EDDSA, Family.ECDH})
]
"""
Pairs of algorithms whose material can be told apart.

Any bytes of the right length are a symmetric key; 48 are also PKCS#8 of Ed25519.
"""


@pytest.fixture(params=[PYCA], ids=lambda provider: provider.name)
def provider(request: pytest.FixtureRequest) -> CryptoProvider:
    """Give each provider in turn."""
    chosen: CryptoProvider = request.param
    return chosen


class TestGenerate:
    @pytest.mark.parametrize("algorithm", SERVED)
    def test_can_be_loaded(
        self, provider: CryptoProvider, algorithm: Algorithm
    ) -> None:
        """
        Fresh material loads as ours and as foreign, and gives the same public key.
        """
        made = provider.generate(algorithm, SystemEntropy())

        own = provider.load(algorithm, made)
        foreign = provider.load_foreign(algorithm, made)

        assert algorithm is own.algorithm
        assert algorithm is foreign.algorithm
        assert own.public_der() == foreign.public_der()

    @pytest.mark.parametrize("algorithm", SERVED)
    def test_is_fresh(self, provider: CryptoProvider, algorithm: Algorithm) -> None:
        """
        Two keys differ.
        """
        assert material(algorithm) != provider.generate(algorithm, SystemEntropy())

    @pytest.mark.parametrize("algorithm", RSA)
    def test_rsa_numbers(self, algorithm: Algorithm) -> None:
        """
        An RSA key has exactly the length of its name, and exponent 65537.
        """
        key = load_der_public_key(public_der(algorithm))
        assert isinstance(key, rsa.RSAPublicKey)

        assert ALGORITHMS[algorithm].modulus_bits == key.key_size
        assert 65537 == key.public_numbers().e


class TestLoad:
    @pytest.mark.parametrize(
        ("wanted", "given_"),
        [(w.algorithm, g.algorithm) for w, g in OTHERS],
    )
    def test_other_algorithm(
        self, provider: CryptoProvider, wanted: Algorithm, given_: Algorithm
    ) -> None:
        """
        A key of another algorithm is refused, whichever way it comes.
        """
        with pytest.raises(InvalidInputError):
            provider.load(wanted, material(given_))
        with pytest.raises(InvalidInputError):
            provider.load_foreign(wanted, material(given_))

    @pytest.mark.parametrize("algorithm", SERVED)
    def test_truncated(self, provider: CryptoProvider, algorithm: Algorithm) -> None:
        """
        Material that is cut off anywhere, or longer, is refused.
        """
        whole = material(algorithm)
        for length in (*range(min(len(whole), 64)), len(whole) - 1):
            with pytest.raises(InvalidInputError):
                provider.load(algorithm, whole[:length])
            with pytest.raises(InvalidInputError):
                provider.load_foreign(algorithm, whole[:length])
        with pytest.raises(InvalidInputError):
            provider.load(algorithm, whole + b"\0")

    @given(algorithm=st.sampled_from(ASYMMETRIC), data=st.binary(max_size=200))
    def test_garbage(self, algorithm: Algorithm, data: bytes) -> None:
        """
        Whatever bytes come, the only error is our own.
        """
        with pytest.raises(InvalidInputError):
            PYCA.load(algorithm, data)
        with pytest.raises(InvalidInputError):
            PYCA.load_public(algorithm, data)

    @pytest.mark.parametrize("algorithm", ASYMMETRIC)
    def test_traditional_form(
        self, provider: CryptoProvider, algorithm: Algorithm
    ) -> None:
        """
        PKCS#1 and SEC 1 keys are refused: material is PKCS#8.
        """
        key = load_der_private_key(material(algorithm), None)
        encrypted = key.private_bytes(
            Encoding.DER, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret")
        )
        forms = [encrypted]
        if ALGORITHMS[algorithm].family in {Family.RSA, Family.ECDSA}:
            forms.append(
                key.private_bytes(
                    Encoding.DER, PrivateFormat.TraditionalOpenSSL, NoEncryption()
                )
            )
        for form in forms:
            with pytest.raises(InvalidInputError, match="not a private key"):
                provider.load(algorithm, form)
            with pytest.raises(InvalidInputError, match="not a private key"):
                provider.load_foreign(algorithm, form)

    def test_foreign_rsa_is_checked(self, provider: CryptoProvider) -> None:
        """
        Foreign RSA numbers that don't belong together are refused.
        """
        algorithm = Algorithm.RSA_2048
        key = load_der_private_key(material(algorithm), None)
        assert isinstance(key, rsa.RSAPrivateKey)
        exponent = key.private_numbers().d.to_bytes(256, "big").lstrip(b"\0")
        wrong = exponent[:-1] + bytes([exponent[-1] ^ 2])
        spoiled = material(algorithm).replace(exponent, wrong)
        assert spoiled != material(algorithm)

        with pytest.raises(InvalidInputError):
            provider.load_foreign(algorithm, spoiled)

    def test_other_exponent(self, provider: CryptoProvider) -> None:
        """
        An RSA key with public exponent 3 is refused in both halves.
        """
        key = rsa.generate_private_key(3, 2048)
        private = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        public = key.public_key().public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        )

        with pytest.raises(InvalidInputError):
            provider.load(Algorithm.RSA_2048, private)
        with pytest.raises(InvalidInputError):
            provider.load_public(Algorithm.RSA_2048, public)


class TestLoadPublic:
    @pytest.mark.parametrize("algorithm", ASYMMETRIC)
    def test_same_form_back(
        self, provider: CryptoProvider, algorithm: Algorithm
    ) -> None:
        """
        A public key comes back as it went in.
        """
        handle = provider.load_public(algorithm, public_der(algorithm))

        assert algorithm is handle.algorithm
        assert public_der(algorithm) == handle.public_der()

    @pytest.mark.parametrize("wanted", ASYMMETRIC)
    @pytest.mark.parametrize("given_", ASYMMETRIC)
    def test_other_algorithm(
        self, provider: CryptoProvider, wanted: Algorithm, given_: Algorithm
    ) -> None:
        """
        A public key of another algorithm is refused, and so is a private one.
        """
        if wanted is not given_:
            with pytest.raises(InvalidInputError, match="not a SubjectPublicKeyInfo"):
                provider.load_public(wanted, public_der(given_))
        with pytest.raises(InvalidInputError, match="not a SubjectPublicKeyInfo"):
            provider.load_public(wanted, material(given_))

    @pytest.mark.parametrize(
        "algorithm", [Algorithm.AES_256_GCM, Algorithm.HMAC_SHA_256]
    )
    def test_symmetric(self, provider: CryptoProvider, algorithm: Algorithm) -> None:
        """
        Symmetric algorithms have no public keys.
        """
        with pytest.raises(UnsupportedOperationError, match="no public keys"):
            provider.load_public(algorithm, bytes(32))

        assert b"" == provider.load(algorithm, bytes(32)).public_der()

    @pytest.mark.parametrize("algorithm", ASYMMETRIC)
    def test_every_changed_byte(
        self, provider: CryptoProvider, algorithm: Algorithm
    ) -> None:
        """
        A public key with one byte changed is another key or an error of our own.
        """
        good = public_der(algorithm)
        for place in range(len(good)):
            changed = bytearray(good)
            changed[place] ^= 0x01
            try:
                loaded = provider.load_public(algorithm, bytes(changed)).public_der()
            except InvalidInputError:
                continue
            assert bytes(changed) == loaded

    def test_compressed_point(self, provider: CryptoProvider) -> None:
        """
        A compressed point is refused, though the library would take it.
        """
        good = public_der(Algorithm.EC_P256)
        key = load_der_public_key(good)
        assert isinstance(key, ec.EllipticCurvePublicKey)
        point = key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
        header = bytes.fromhex("3039") + good[2:23] + bytes.fromhex("032200")
        load_der_public_key(header + point)

        with pytest.raises(InvalidInputError):
            provider.load_public(Algorithm.EC_P256, header + point)

    def test_point_off_the_curve(self, provider: CryptoProvider) -> None:
        """
        A point that is not on the curve is refused.
        """
        good = public_der(Algorithm.EC_P256)

        with pytest.raises(InvalidInputError):
            provider.load_public(Algorithm.EC_P256, good[:-64] + b"\x01" * 64)

    @pytest.mark.parametrize("algorithm", ASYMMETRIC)
    def test_trailing_byte(
        self, provider: CryptoProvider, algorithm: Algorithm
    ) -> None:
        """
        Nothing may follow the key.
        """
        with pytest.raises(InvalidInputError):
            provider.load_public(algorithm, public_der(algorithm) + b"\0")

    def test_bare_rsa_key(self, provider: CryptoProvider) -> None:
        """
        A PKCS#1 public key is refused: it doesn't name its algorithm.
        """
        key = load_der_public_key(public_der(Algorithm.RSA_2048))

        with pytest.raises(InvalidInputError):
            provider.load_public(
                Algorithm.RSA_2048,
                key.public_bytes(Encoding.DER, PublicFormat.PKCS1),
            )
