# SPDX-License-Identifier: MIT
"""The stateless face of the cryptography."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from hsm_core import primitives
from hsm_core.algorithms import (
    ALGORITHMS,
    Algorithm,
    Family,
    HashAlgorithm,
    SignatureEncoding,
    SignatureScheme,
)
from hsm_core.errors import (
    DecryptionError,
    InputSizeError,
    InvalidInputError,
    MacMismatchError,
    SignatureMismatchError,
    UnsupportedOperationError,
)
from tests.core.crypto_samples import ASYMMETRIC, RSA, material, public_der

AES, HMAC = Algorithm.AES_256_GCM, Algorithm.HMAC_SHA_256
KEY, NONCE = bytes(range(32)), bytes(12)


@dataclass(frozen=True)
class Sizes:
    """Lengths of an algorithm's results, in bytes; DER signatures at most."""

    public_der: int
    signature: int


SIZES = {
    Algorithm.RSA_2048: Sizes(294, 256),
    Algorithm.RSA_3072: Sizes(422, 384),
    Algorithm.RSA_4096: Sizes(550, 512),
    Algorithm.EC_P256: Sizes(91, 72),
    Algorithm.EC_P384: Sizes(120, 104),
    Algorithm.EC_P521: Sizes(158, 139),
    Algorithm.ED25519: Sizes(44, 64),
}


class TestKeys:
    @pytest.mark.parametrize("algorithm", Algorithm)
    def test_generate(self, algorithm: Algorithm) -> None:
        """
        A new key has the sizes of its algorithm, and shows nothing of itself.
        """
        pair = primitives.generate(algorithm)
        row = ALGORITHMS[algorithm]

        assert "<KeyPair>" == repr(pair)
        assert row.key_bytes == (0 if row.is_asymmetric else len(pair.material))
        assert len(pair.public_der) == (
            SIZES[algorithm].public_der if row.is_asymmetric else 0
        )
        assert pair.public_der == primitives.public_key(algorithm, pair.material)

    @pytest.mark.parametrize("algorithm", ASYMMETRIC)
    def test_handles_serve_as_keys(self, algorithm: Algorithm) -> None:
        """
        A loaded key does what its bytes do.
        """
        private = primitives.load_private_key(algorithm, material(algorithm))
        public = primitives.load_public_key(algorithm, public_der(algorithm))
        signature = primitives.sign(algorithm, private, b"message")

        primitives.verify(algorithm, public, signature, b"message")
        primitives.verify(algorithm, public_der(algorithm), signature, b"message")
        assert public_der(algorithm) == primitives.public_key(algorithm, private)

    def test_handle_of_another_algorithm(self) -> None:
        """
        A loaded key of another algorithm is refused.
        """
        handle = primitives.load_private_key(HMAC, KEY)

        with pytest.raises(InvalidInputError, match="HMAC-SHA-256, not of AES-256"):
            primitives.aead_encrypt(AES, handle, NONCE, b"")

    @pytest.mark.parametrize("size", [0, 16, 24, 31, 33, 64])
    @pytest.mark.parametrize("algorithm", [AES, HMAC])
    def test_other_key_lengths(self, algorithm: Algorithm, size: int) -> None:
        """
        A symmetric key has 32 bytes.
        """
        with pytest.raises(InputSizeError, match="material must be 32 bytes"):
            primitives.load_private_key(algorithm, bytes(size))


class TestSignatures:
    @pytest.mark.parametrize("algorithm", ASYMMETRIC)
    def test_defaults(self, algorithm: Algorithm) -> None:
        """
        The defaults of signing and verifying are the same, and sizes as documented.
        """
        signature = primitives.sign(algorithm, material(algorithm), b"message")

        assert len(signature) <= SIZES[algorithm].signature
        primitives.verify(algorithm, public_der(algorithm), signature, b"message")
        with pytest.raises(SignatureMismatchError):
            primitives.verify(algorithm, public_der(algorithm), signature, b"another")

    @pytest.mark.parametrize("scheme", ALGORITHMS[Algorithm.RSA_2048].schemes)
    @pytest.mark.parametrize("hashed", HashAlgorithm)
    def test_rsa_ways(self, scheme: SignatureScheme, hashed: HashAlgorithm) -> None:
        """
        RSA signs in both schemes with each hash, and verifies in no other.
        """
        algorithm = Algorithm.RSA_2048
        signature = primitives.sign(
            algorithm, material(algorithm), b"message", scheme=scheme, hash=hashed
        )

        for other_scheme in ALGORITHMS[algorithm].schemes:
            for other_hash in HashAlgorithm:
                arguments = (algorithm, public_der(algorithm), signature, b"message")
                if (other_scheme, other_hash) == (scheme, hashed):
                    primitives.verify(*arguments, scheme=scheme, hash=hashed)
                    continue
                with pytest.raises(SignatureMismatchError):
                    primitives.verify(*arguments, scheme=other_scheme, hash=other_hash)

    def test_digest(self) -> None:
        """
        A digest stands for its message.
        """
        algorithm = Algorithm.EC_P256
        digest = hashlib.sha256(b"message").digest()
        signature = primitives.sign(
            algorithm,
            material(algorithm),
            digest=digest,
            encoding=SignatureEncoding.P1363,
        )

        primitives.verify(
            algorithm,
            public_der(algorithm),
            signature,
            b"message",
            encoding=SignatureEncoding.P1363,
        )
        primitives.verify(
            algorithm,
            public_der(algorithm),
            signature,
            digest=digest,
            encoding=SignatureEncoding.P1363,
        )

    @pytest.mark.parametrize(
        ("message", "digest"), [(None, None), (b"message", bytes(32))]
    )
    def test_message_or_digest(
        self, message: bytes | None, digest: bytes | None
    ) -> None:
        """
        Exactly one of message and digest must be given.
        """
        algorithm = Algorithm.EC_P256

        with pytest.raises(InvalidInputError, match="exactly one of"):
            primitives.sign(algorithm, material(algorithm), message, digest=digest)
        with pytest.raises(InvalidInputError, match="exactly one of"):
            primitives.verify(
                algorithm, public_der(algorithm), b"", message, digest=digest
            )

    def test_empty_message(self) -> None:
        """
        An empty message is a message.
        """
        algorithm = Algorithm.ED25519
        signature = primitives.sign(algorithm, material(algorithm), b"")

        primitives.verify(algorithm, public_der(algorithm), signature, b"")

    def test_no_digest_for_ed25519(self) -> None:
        """
        Ed25519 signs whole messages.
        """
        with pytest.raises(UnsupportedOperationError, match="never digests"):
            primitives.sign(
                Algorithm.ED25519, material(Algorithm.ED25519), digest=bytes(64)
            )

    def test_pss_parameters(self) -> None:
        """
        MGF1's hash and the salt's length are checked where they are given.
        """
        algorithm = Algorithm.RSA_2048
        signature = primitives.sign(algorithm, material(algorithm), b"message")
        arguments = (algorithm, public_der(algorithm), signature, b"message")

        primitives.verify(*arguments, mgf_hash=HashAlgorithm.SHA_256, salt_bytes=32)
        with pytest.raises(SignatureMismatchError):
            primitives.verify(*arguments, salt_bytes=20)
        with pytest.raises(SignatureMismatchError):
            primitives.verify(*arguments, mgf_hash=HashAlgorithm.SHA_384)


class TestSecrecy:
    def test_aead(self) -> None:
        """
        AES-256-GCM seals and opens, bound to nonce and additional data.
        """
        sealed = primitives.aead_encrypt(AES, KEY, NONCE, b"plaintext", b"aad")

        assert b"plaintext" == primitives.aead_decrypt(AES, KEY, NONCE, sealed, b"aad")
        with pytest.raises(DecryptionError):
            primitives.aead_decrypt(AES, KEY, NONCE, sealed)

    @pytest.mark.parametrize("size", [0, 8, 11, 13, 16])
    def test_other_nonce_lengths(self, size: int) -> None:
        """
        A nonce has 12 bytes, both ways.
        """
        with pytest.raises(InputSizeError, match="nonce must be 12 bytes"):
            primitives.aead_encrypt(AES, KEY, bytes(size), b"")
        with pytest.raises(InputSizeError, match="nonce must be 12 bytes"):
            primitives.aead_decrypt(AES, KEY, bytes(size), bytes(16))

    @pytest.mark.parametrize("algorithm", RSA)
    def test_oaep(self, algorithm: Algorithm) -> None:
        """
        RSAES-OAEP encrypts to a public key, bound to its label.
        """
        sent = primitives.oaep_encrypt(
            algorithm, public_der(algorithm), b"plaintext", label=b"label"
        )

        assert b"plaintext" == primitives.oaep_decrypt(
            algorithm, material(algorithm), sent, label=b"label"
        )
        with pytest.raises(DecryptionError):
            primitives.oaep_decrypt(algorithm, material(algorithm), sent)

    def test_mac(self) -> None:
        """
        A MAC verifies at full length over its own message only.
        """
        tag = primitives.mac(HMAC, KEY, b"message")

        assert 32 == len(tag)
        primitives.verify_mac(HMAC, KEY, b"message", tag)
        for message, wrong in (
            (b"another", tag),
            (b"message", tag[:-1]),
            (b"message", tag + b"\0"),
            (b"message", b""),
            (b"message", bytes(32)),
        ):
            with pytest.raises(MacMismatchError):
                primitives.verify_mac(HMAC, KEY, message, wrong)


class TestUnsupported:
    @pytest.mark.parametrize("algorithm", Algorithm)
    def test_other_families(self, algorithm: Algorithm) -> None:
        """
        What an algorithm doesn't do is refused by that name.
        """
        family = ALGORITHMS[algorithm].family
        key = primitives.load_private_key(algorithm, material(algorithm))
        attempts: dict[Family, Callable[[], bytes]] = {
            Family.AEAD: lambda: primitives.aead_encrypt(algorithm, key, NONCE, b""),
            Family.RSA: lambda: primitives.oaep_encrypt(algorithm, key, b""),
            Family.MAC: lambda: primitives.mac(algorithm, key, b""),
        }
        for offered_by, attempt in attempts.items():
            if offered_by is not family:
                with pytest.raises(UnsupportedOperationError):
                    attempt()
        if family in {Family.AEAD, Family.MAC}:
            with pytest.raises(UnsupportedOperationError):
                primitives.sign(algorithm, key, b"")
