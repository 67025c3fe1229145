# SPDX-License-Identifier: MIT
"""What primitives do with arguments that are almost, or not at all, of their type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from hsm_core import errors, primitives
from hsm_core.algorithms import (
    Algorithm,
    HashAlgorithm,
    SignatureEncoding,
    SignatureScheme,
    WrapMechanism,
)

A = Algorithm
KEY, NONCE = bytes(range(32)), bytes(12)
LOOSE: Any = primitives
"""The same functions, for arguments that a type checker refuses."""

SIGNERS = [A.EC_P256, A.ED25519, A.ML_DSA_44, A.SLH_DSA_SHA2_128F]
LIKE_BYTES = [bytearray, memoryview]


class TestNames:
    def test_an_algorithm_by_its_name(self) -> None:
        """The text of a member is that member, never another of its family."""
        algorithm = A.CHACHA20_POLY1305
        sealed = LOOSE.aead_encrypt(algorithm.value, KEY, NONCE, b"m")

        assert primitives.aead_encrypt(algorithm, KEY, NONCE, b"m") == sealed
        assert primitives.aead_encrypt(A.AES_256_GCM, KEY, NONCE, b"m") != sealed

    def test_scheme_and_encoding_by_name(self) -> None:
        """A scheme or an encoding that is given as text is used, not the default."""
        pair = primitives.generate(A.RSA_2048)
        scheme = SignatureScheme.RSASSA_PKCS1_V1_5
        signature = LOOSE.sign(A.RSA_2048, pair.material, b"m", scheme=scheme.value)
        primitives.verify(A.RSA_2048, pair.public_der, signature, b"m", scheme=scheme)

        pair = primitives.generate(A.EC_P256)
        encoding = SignatureEncoding.P1363.value
        assert 64 == len(LOOSE.sign(A.EC_P256, pair.material, b"m", encoding=encoding))

    def test_mechanism_and_hash_by_name(self) -> None:
        """So with mechanisms of wrapping and hashes."""
        plain = primitives.wrap_for_import(
            A.AES_256_KW, KEY, bytes(16), mechanism=WrapMechanism.AES_KW
        )
        named = LOOSE.wrap_for_import(A.AES_256_KW, KEY, bytes(16), mechanism="AES-KW")
        assert plain == named

        derived = primitives.hkdf(HashAlgorithm.SHA_512, KEY)
        assert derived == LOOSE.hkdf("SHA-512", KEY)

    @pytest.mark.parametrize(
        ("field", "call"),
        [
            ("algorithm", lambda: LOOSE.generate("AES-512")),
            ("algorithm", lambda: LOOSE.generate(KEY)),
            ("algorithm", lambda: LOOSE.sign(None, KEY, b"m")),
            ("algorithm", lambda: LOOSE.wrap_for_import("none", KEY, KEY)),
            ("scheme", lambda: LOOSE.sign(A.RSA_2048, KEY, b"m", scheme="raw")),
            ("encoding", lambda: LOOSE.sign(A.EC_P256, KEY, b"m", encoding="hex")),
            ("hash", lambda: LOOSE.hkdf("MD5", KEY)),
            ("mgf_hash", lambda: LOOSE.oaep_encrypt(A.RSA_2048, KEY, b"", mgf_hash="")),
            (
                "mechanism",
                lambda: LOOSE.unwrap_exported(A.AES_256_KW, KEY, KEY, mechanism="ECB"),
            ),
        ],
    )
    def test_unknown_names(self, field: str, call: Callable[[], object]) -> None:
        """What names no member is refused, and not repeated: it may be a key."""
        with pytest.raises(errors.InvalidInputError) as caught:
            call()
        assert field == caught.value.facts["field"]
        assert caught.value.__context__ is None
        assert repr(KEY) not in str(caught.value)


class TestBytes:
    @pytest.mark.parametrize("kind", LIKE_BYTES)
    @pytest.mark.parametrize("algorithm", SIGNERS)
    def test_signatures(
        self, algorithm: Algorithm, kind: Callable[[bytes], Any]
    ) -> None:
        """Every provider takes whatever holds bytes."""
        pair = primitives.generate(algorithm)
        signature = primitives.sign(algorithm, kind(pair.material), kind(b"m"))
        primitives.verify(algorithm, kind(pair.public_der), kind(signature), kind(b"m"))

    @pytest.mark.parametrize("kind", LIKE_BYTES)
    @pytest.mark.parametrize("algorithm", [A.ML_KEM_512, A.MLKEM768_X25519_SHA3_256])
    def test_kems(self, algorithm: Algorithm, kind: Callable[[bytes], Any]) -> None:
        """So with encapsulations."""
        pair = primitives.generate(algorithm)
        made = primitives.encapsulate(algorithm, kind(pair.public_der))
        found = primitives.decapsulate(
            algorithm, kind(pair.material), kind(made.ciphertext)
        )
        assert made.shared_secret == found

    @pytest.mark.parametrize("wrong", ["text", 5, None, [1, 2]])
    @pytest.mark.parametrize("algorithm", SIGNERS)
    def test_anything_else_is_an_error_of_types(
        self, algorithm: Algorithm, wrong: object
    ) -> None:
        """What holds no bytes is the caller's mistake, not the provider's failure."""
        pair = primitives.generate(algorithm)
        with pytest.raises(TypeError):
            LOOSE.verify(algorithm, pair.public_der, wrong, b"m")
        with pytest.raises(TypeError):
            LOOSE.sign(algorithm, wrong, b"m")
        with pytest.raises(TypeError):
            LOOSE.mac(A.HMAC_SHA_256, KEY, wrong)
        with pytest.raises(TypeError):
            LOOSE.ecdh(A.X25519, primitives.generate(A.X25519).material, wrong)
