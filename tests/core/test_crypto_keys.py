# SPDX-License-Identifier: MIT
"""The provider over cryptography: keys that it refuses, and what it serves."""

from __future__ import annotations

from random import randbytes

import pytest
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
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

from hsm_core._internal.crypto.pyca import PycaCryptoProvider, provider, symmetric
from hsm_core.algorithms import ALGORITHMS, Algorithm, Family
from hsm_core.errors import DecryptionError, InputSizeError, InvalidInputError
from tests.core.crypto_samples import ASYMMETRIC, PYCA, SERVED, material, public_der

KEY = bytes(range(32))


class TestLoad:
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
    def test_traditional_form(self, algorithm: Algorithm) -> None:
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
                PYCA.load(algorithm, form)
            with pytest.raises(InvalidInputError, match="not a private key"):
                PYCA.load_foreign(algorithm, form)

    def test_foreign_rsa_is_checked(self) -> None:
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
            PYCA.load_foreign(algorithm, spoiled)

    def test_other_exponent(self) -> None:
        """
        An RSA key with public exponent 3 is refused in both halves.
        """
        key = rsa.generate_private_key(3, 2048)
        private = key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
        public = key.public_key().public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo
        )

        with pytest.raises(InvalidInputError):
            PYCA.load(Algorithm.RSA_2048, private)
        with pytest.raises(InvalidInputError):
            PYCA.load_public(Algorithm.RSA_2048, public)


class TestLoadPublic:
    @pytest.mark.parametrize("algorithm", ASYMMETRIC)
    def test_every_changed_byte(self, algorithm: Algorithm) -> None:
        """
        A public key with one byte changed is another key or an error of our own.
        """
        good = public_der(algorithm)
        for place in range(len(good)):
            changed = bytearray(good)
            changed[place] ^= 0x01
            try:
                loaded = PYCA.load_public(algorithm, bytes(changed)).public_der()
            except InvalidInputError:
                continue
            assert bytes(changed) == loaded

    def test_other_forms(self) -> None:
        """
        A compressed point, one off the curve and a bare RSA key are refused.
        """
        good, rsa_key = public_der(Algorithm.EC_P256), public_der(Algorithm.RSA_2048)
        key = load_der_public_key(good)
        assert isinstance(key, ec.EllipticCurvePublicKey)
        point = key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)
        header = bytes.fromhex("3039") + good[2:23] + bytes.fromhex("032200")
        load_der_public_key(header + point)  # the library would take it
        bare = load_der_public_key(rsa_key).public_bytes(
            Encoding.DER, PublicFormat.PKCS1
        )

        for algorithm, wrong in (
            (Algorithm.EC_P256, header + point),
            (Algorithm.EC_P256, good[:-64] + b"\x01" * 64),
            (Algorithm.RSA_2048, bare),
        ):
            with pytest.raises(InvalidInputError):
                PYCA.load_public(algorithm, wrong)


@pytest.mark.parametrize("field", ["plaintext", "aad"])
def test_longest_message(monkeypatch: pytest.MonkeyPatch, field: str) -> None:
    """More than the library can encrypt in one call is refused by name."""
    monkeypatch.setattr(symmetric, "MOST_BYTES", 20)
    data = {"plaintext": b"", "aad": b""} | {field: bytes(21)}

    with pytest.raises(InputSizeError) as caught:
        PYCA.load(Algorithm.AES_256_GCM, bytes(32)).seal(bytes(12), *data.values())

    assert (field, 20) == (caught.value.facts["field"], caught.value.facts["maximum"])


@pytest.mark.parametrize("size", [32 * 1024, 32 * 1024 + 1, 300_000])
@pytest.mark.parametrize(
    "algorithm", [Algorithm.AES_256_GCM, Algorithm.CHACHA20_POLY1305]
)
def test_messages_written_in_place(algorithm: Algorithm, size: int) -> None:
    """Long messages are those of the library, and one changed bit opens none."""
    own, nonce, start = PYCA.load(algorithm, KEY), bytes(12), b"header"
    is_aes = algorithm is Algorithm.AES_256_GCM
    peer = AESGCM(KEY) if is_aes else ChaCha20Poly1305(KEY)
    message = randbytes(size)

    sealed = own.seal(nonce, message, b"aad", start)
    again = own.seal(nonce, bytes(size), b"aad", start)

    assert start + peer.encrypt(nonce, message, b"aad") == sealed != again
    body = sealed[len(start) :]
    assert message == own.open(nonce, memoryview(body), b"aad")
    for place in (0, size // 2, size, size + 15):
        changed = bytearray(body)
        changed[place] ^= 1
        with pytest.raises(DecryptionError):
            own.open(nonce, bytes(changed), b"aad")


@pytest.mark.parametrize("family", [Family.ML_KEM, Family.ML_DSA])
def test_build_without_a_family(
    monkeypatch: pytest.MonkeyPatch, family: Family
) -> None:
    """A build of the library without a family serves all else, and raises nothing."""

    def missing(seed: bytes) -> object:
        raise UnsupportedAlgorithm("not in this build")

    left_out = {a for a in SERVED if ALGORITHMS[a].family is family}
    for algorithm in left_out:
        monkeypatch.setitem(provider.FROM_SEED, algorithm, missing)

    assert left_out
    assert PYCA.algorithms() - left_out == PycaCryptoProvider().algorithms()
