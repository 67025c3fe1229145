# SPDX-License-Identifier: MIT
"""The stateless face of the cryptography."""

from __future__ import annotations

import hashlib
from functools import cache, partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm_core import primitives
from hsm_core.algorithms import (
    ALGORITHMS,
    Algorithm,
    Cost,
    Family,
    HashAlgorithm,
    SignatureEncoding,
    SignatureScheme,
    WrapMechanism,
)
from hsm_core.errors import (
    AlgorithmUnavailableError,
    DecryptionError,
    InputSizeError,
    InvalidInputError,
    MacMismatchError,
    SignatureMismatchError,
    UnsupportedOperationError,
)
from tests.support import require_service

AES, HMAC = Algorithm.AES_256_GCM, Algorithm.HMAC_SHA_256
KEY, NONCE = bytes(range(32)), bytes(12)


QUICK = [
    algorithm
    for algorithm, row in ALGORITHMS.items()
    if row.use_cost is Cost.QUICK or algorithm is Algorithm.SLH_DSA_SHA2_128F
]
"""Every algorithm, but of those that sign slowly only the least slow."""

ASYMMETRIC = [algorithm for algorithm in QUICK if ALGORITHMS[algorithm].is_asymmetric]
SIGNING = [algorithm for algorithm in QUICK if ALGORITHMS[algorithm].is_signature]
SYMMETRIC = [algorithm for algorithm in QUICK if algorithm not in ASYMMETRIC]
RSA = [algorithm for algorithm in QUICK if ALGORITHMS[algorithm].modulus_bits]
KEMS = [algorithm for algorithm in QUICK if ALGORITHMS[algorithm].is_kem]
AEADS = [a for a in QUICK if ALGORITHMS[a].family is Family.AEAD]
MACS = [a for a in QUICK if ALGORITHMS[a].family is Family.MAC]
KEY_ID = "3f0c7e0e-0d3b-4c43-9b7a-2f5b8f1f7c11"


@cache
def pair(algorithm: Algorithm) -> primitives.KeyPair:
    """Return one key of an algorithm, made once per run."""
    try:
        return primitives.generate(algorithm)
    except AlgorithmUnavailableError:
        require_service(f"A provider of {algorithm}", found=False)
        raise


def material(algorithm: Algorithm) -> bytes:
    """Return the private form of `pair`."""
    return pair(algorithm).material


def public_der(algorithm: Algorithm) -> bytes:
    """Return the public half of `pair`."""
    return pair(algorithm).public_der


class TestKeys:
    @pytest.mark.parametrize("algorithm", QUICK)
    def test_generate(self, algorithm: Algorithm) -> None:
        """
        A new key has the sizes of its algorithm, and shows nothing of itself.
        """
        made = pair(algorithm)
        row = ALGORITHMS[algorithm]

        assert "<KeyPair>" == repr(made)
        assert row.key_bytes == (0 if row.is_asymmetric else len(made.material))
        assert bool(made.public_der) == row.is_asymmetric
        assert row.public_bytes <= len(made.public_der) <= row.public_bytes + 600
        assert made.public_der == primitives.public_key(algorithm, made.material)

    @pytest.mark.parametrize("algorithm", SIGNING)
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

        with pytest.raises(InvalidInputError, match="for AES-256-GCM, got"):
            primitives.aead_encrypt(AES, handle, NONCE, b"")

    @pytest.mark.parametrize("algorithm", SYMMETRIC)
    def test_other_key_lengths(self, algorithm: Algorithm) -> None:
        """
        A symmetric key has the length of its algorithm.
        """
        size = ALGORITHMS[algorithm].key_bytes

        for wrong in {0, 15, size - 1, size + 1, 2 * size}:
            with pytest.raises(InputSizeError, match=f"material must be {size} bytes"):
                primitives.load_private_key(algorithm, bytes(wrong))

    @pytest.mark.parametrize(
        ("algorithm", "size"), [(Algorithm.ML_KEM_768, 64), (Algorithm.ML_DSA_65, 32)]
    )
    def test_seeds(self, algorithm: Algorithm, size: int) -> None:
        """
        A seed stands for one key, and has its length.
        """
        one, same, other = (
            primitives.private_key_from_seed(algorithm, seed)
            for seed in (bytes(size), bytes(size), bytes([1]) + bytes(size - 1))
        )

        assert one.public_der == same.public_der != other.public_der
        assert one.public_der == primitives.public_key(algorithm, one.material)
        for wrong in (0, size - 1, size + 1):
            with pytest.raises(InputSizeError, match=f"seed must be {size} bytes"):
                primitives.private_key_from_seed(algorithm, bytes(wrong))

    @pytest.mark.parametrize("algorithm", [Algorithm.ED25519, HMAC, Algorithm.RSA_2048])
    def test_no_seeds(self, algorithm: Algorithm) -> None:
        """
        Keys of other algorithms are not made from seeds.
        """
        with pytest.raises(UnsupportedOperationError, match="no seed"):
            primitives.private_key_from_seed(algorithm, bytes(32))


class TestSignatures:
    @pytest.mark.parametrize("algorithm", SIGNING)
    def test_defaults(self, algorithm: Algorithm) -> None:
        """
        The defaults of signing and verifying are the same, and sizes as documented.
        """
        signature = primitives.sign(algorithm, material(algorithm), b"message")

        assert len(signature) <= ALGORITHMS[algorithm].signature_bytes
        primitives.verify(algorithm, public_der(algorithm), signature, b"message")
        with pytest.raises(SignatureMismatchError):
            primitives.verify(algorithm, public_der(algorithm), signature, b"another")

    def test_digest(self) -> None:
        """
        A digest stands for its message.
        """
        algorithm = Algorithm.EC_P256
        digest = hashlib.sha256(b"message").digest()
        p1363 = SignatureEncoding.P1363

        signature = primitives.sign(
            algorithm, material(algorithm), digest=digest, encoding=p1363
        )

        verify = partial(primitives.verify, algorithm, public_der(algorithm), signature)
        verify(b"message", encoding=p1363)
        verify(digest=digest, encoding=p1363)

    @given(
        pieces=st.lists(st.binary(max_size=300), max_size=5),
        context=st.binary(max_size=255),
    )
    def test_mu_in_pieces(self, pieces: list[bytes], context: bytes) -> None:
        """
        Mu of a message in pieces is that of the whole, by the standard's formula.
        """
        algorithm = Algorithm.ML_DSA_65
        public = public_der(algorithm)
        hasher = primitives.MuHasher(algorithm, public, context)
        for piece in pieces:
            hasher.update(piece)

        raw = public[-ALGORITHMS[algorithm].public_bytes :]
        message = b"".join(pieces)
        start = hashlib.shake_256(raw).digest(64) + bytes([0, len(context)])
        expected = hashlib.shake_256(start + context + message).digest(64)
        assert expected == hasher.digest()
        assert expected == primitives.external_mu(algorithm, public, message, context)

    def test_no_mu_elsewhere(self) -> None:
        """
        Other algorithms have no mu, and a context of 256 bytes gives none.
        """
        with pytest.raises(UnsupportedOperationError, match="not support external mu"):
            primitives.external_mu(
                Algorithm.ED25519, public_der(Algorithm.ED25519), b"m"
            )
        with pytest.raises(InputSizeError, match="context"):
            primitives.MuHasher(
                Algorithm.ML_DSA_44, public_der(Algorithm.ML_DSA_44), bytes(256)
            )
        with pytest.raises(InvalidInputError, match="ML-DSA-44"):
            primitives.MuHasher(Algorithm.ML_DSA_44, public_der(Algorithm.ML_DSA_65))


class TestRawSignatures:
    @pytest.mark.parametrize("algorithm", [Algorithm.EC_P256, Algorithm.EC_P521])
    def test_a_digest_of_any_length(self, algorithm: Algorithm) -> None:
        """
        A digest shorter than the curve's hash counts with zeros before it.
        """
        size = ALGORITHMS[algorithm].hashes[0].digest_bytes
        for encoding in (None, *SignatureEncoding):
            made = primitives.sign(
                algorithm,
                material(algorithm),
                digest=b"short".rjust(size, b"\0"),
                encoding=encoding,
            )
            key = public_der(algorithm)

            primitives.verify_raw(algorithm, key, made, b"short", encoding=encoding)
            with pytest.raises(SignatureMismatchError):
                primitives.verify_raw(algorithm, key, made, b"sharp", encoding=encoding)
            with pytest.raises(InputSizeError):
                primitives.verify_raw(algorithm, key, made, b"", encoding=encoding)

    def test_a_digest_info(self) -> None:
        """
        RSA verifies what was padded as it was given.
        """
        algorithm, digest = Algorithm.RSA_2048, hashlib.sha256(b"hello").digest()
        made = primitives.sign(
            algorithm,
            material(algorithm),
            b"hello",
            scheme=SignatureScheme.RSASSA_PKCS1_V1_5,
        )
        info = bytes.fromhex("3031300d060960864801650304020105000420") + digest

        primitives.verify_raw(algorithm, public_der(algorithm), made, info)
        with pytest.raises(SignatureMismatchError):
            primitives.verify_raw(algorithm, public_der(algorithm), made, digest)

    def test_other_algorithms_always_hash(self) -> None:
        """
        Ed25519 has no raw signatures.
        """
        algorithm = Algorithm.ED25519
        with pytest.raises(UnsupportedOperationError):
            primitives.verify_raw(algorithm, public_der(algorithm), bytes(64), b"x")


class TestSecrecy:
    @pytest.mark.parametrize("algorithm", AEADS)
    def test_aead(self, algorithm: Algorithm) -> None:
        """
        Every authenticated cipher seals and opens, bound to nonce and aad.
        """
        key = material(algorithm)
        sealed = primitives.aead_encrypt(algorithm, key, NONCE, b"plaintext", b"aad")

        assert len(sealed) == 9 + 16
        assert b"plaintext" == primitives.aead_decrypt(
            algorithm, key, NONCE, sealed, b"aad"
        )
        for nonce, ciphertext, aad in (
            (NONCE, sealed, b""),
            (bytes([1]) + NONCE[1:], sealed, b"aad"),
            (NONCE, sealed[:-1], b"aad"),
            (NONCE, b"", b"aad"),
        ):
            with pytest.raises(DecryptionError):
                primitives.aead_decrypt(algorithm, key, nonce, ciphertext, aad)

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

    @pytest.mark.parametrize("algorithm", MACS)
    def test_mac(self, algorithm: Algorithm) -> None:
        """
        A MAC verifies at full length over its own message only.
        """
        key = material(algorithm)
        tag = primitives.mac(algorithm, key, b"message")

        assert ALGORITHMS[algorithm].mac_bytes == len(tag)
        primitives.verify_mac(algorithm, key, b"message", tag)
        for message, wrong in (
            (b"another", tag),
            (b"message", tag[:-1]),
            (b"message", tag + b"\0"),
            (b"message", b""),
            (b"message", bytes(len(tag))),
        ):
            with pytest.raises(MacMismatchError):
                primitives.verify_mac(algorithm, key, message, wrong)


class TestKems:
    @pytest.mark.parametrize("algorithm", KEMS)
    def test_encapsulate(self, algorithm: Algorithm) -> None:
        """
        Both sides find 32 bytes; another length is refused with the right one.
        """
        size = ALGORITHMS[algorithm].ciphertext_bytes
        made = primitives.encapsulate(algorithm, public_der(algorithm))

        assert (size, 32) == (len(made.ciphertext), len(made.shared_secret))
        assert "<Encapsulated>" == repr(made)
        assert made.shared_secret == primitives.decapsulate(
            algorithm, material(algorithm), made.ciphertext
        )
        for wrong in (b"", made.ciphertext[1:], made.ciphertext + b"\0"):
            with pytest.raises(InputSizeError, match=f"ciphertext must be {size}"):
                primitives.decapsulate(algorithm, material(algorithm), wrong)

    @pytest.mark.parametrize("algorithm", KEMS)
    def test_seal(self, algorithm: Algorithm) -> None:
        """
        A sealed message opens with its own key and aad only.
        """
        key = material(algorithm)
        sent = primitives.seal(
            algorithm, public_der(algorithm), KEY_ID, 7, b"plaintext", b"aad"
        )

        assert b"plaintext" == primitives.open_sealed(algorithm, key, sent, b"aad")
        for wrong, aad in ((sent, b""), (sent[:-1], b"aad"), (b"", b"aad")):
            with pytest.raises(DecryptionError):
                primitives.open_sealed(algorithm, key, wrong, aad)

    def test_names(self) -> None:
        """
        A sealed message names a key and a version that can be.
        """
        algorithm = Algorithm.ML_KEM_768
        for key_id, version, field in (
            ("", 1, "key_id"),
            (KEY_ID.upper(), 1, "key_id"),
            (KEY_ID.replace("-", ""), 1, "key_id"),
            (f"{{{KEY_ID}}}", 1, "key_id"),
            (KEY_ID, -1, "version"),
            (KEY_ID, 0, "version"),
            (KEY_ID, 2**32, "version"),
        ):
            with pytest.raises(InvalidInputError, match=field):
                primitives.seal(algorithm, public_der(algorithm), key_id, version, b"m")


class TestTransfer:
    @given(data=st.binary(min_size=1, max_size=200))
    def test_key_wrap(self, data: bytes) -> None:
        """
        AES-KWP wraps anything, AES-KW whole blocks of 8 bytes from 16 on.
        """
        algorithm = Algorithm.AES_256_KW
        wrapped = primitives.key_wrap(algorithm, KEY, data)

        assert len(wrapped) == 8 + (len(data) + 7) // 8 * 8
        assert data == primitives.key_unwrap(algorithm, KEY, wrapped)
        if len(data) >= 16 and len(data) % 8 == 0:
            plain = primitives.key_wrap(algorithm, KEY, data, padded=False)
            assert data == primitives.key_unwrap(algorithm, KEY, plain, padded=False)
        else:
            with pytest.raises(InvalidInputError):
                primitives.key_wrap(algorithm, KEY, data, padded=False)

    def test_hkdf(self) -> None:
        """
        Test case 3 of RFC 5869: neither salt nor info.
        """
        derived = primitives.hkdf(HashAlgorithm.SHA_256, b"\x0b" * 22, length=42)

        assert derived.hex() == (
            "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d"
            "9d201395faa4b61a96c8"
        )

    @pytest.mark.parametrize(
        "algorithm", [Algorithm.RSA_2048, Algorithm.AES_128_KW, *KEMS]
    )
    def test_wrap_for_import(self, algorithm: Algorithm) -> None:
        """
        What is wrapped for an HSM opens with the private half, and is bound to it.
        """
        key = material(algorithm)
        wrapped = primitives.wrap_for_import(
            algorithm, public_der(algorithm) or key, b"a private key"
        )

        assert b"a private key" == primitives.unwrap_exported(algorithm, key, wrapped)
        for wrong in (b"", wrapped[:-1], wrapped[1:], wrapped + bytes(8)):
            with pytest.raises(DecryptionError):
                primitives.unwrap_exported(algorithm, key, wrong)

    def test_other_mechanisms(self) -> None:
        """
        A key wraps by its own mechanisms only, and signers not at all.
        """
        with pytest.raises(UnsupportedOperationError, match=r"KEM\+AES-KWP"):
            primitives.wrap_for_import(
                Algorithm.ML_KEM_768,
                public_der(Algorithm.ML_KEM_768),
                b"m",
                mechanism=WrapMechanism.AES_KWP,
            )
        with pytest.raises(UnsupportedOperationError, match="can't wrap keys"):
            primitives.wrap_for_import(
                Algorithm.ED25519, public_der(Algorithm.ED25519), b"m"
            )
