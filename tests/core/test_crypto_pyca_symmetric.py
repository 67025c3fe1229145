# SPDX-License-Identifier: MIT
"""Ciphers, MACs, key wrap and derivation of the provider over cryptography."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st

from hsm_core.algorithms import ALGORITHMS, Algorithm, Family
from hsm_core.errors import DecryptionError, InputSizeError, UnsupportedOperationError
from tests.core.crypto_samples import PYCA, SERVED

AEADS = [a for a in SERVED if ALGORITHMS[a].family is Family.AEAD]
WRAPPING = [Algorithm.AES_128_KW, Algorithm.AES_256_KW]
HASHES = {
    Algorithm.HKDF_SHA_256: "sha256",
    Algorithm.HKDF_SHA_384: "sha384",
    Algorithm.HKDF_SHA_512: "sha512",
    Algorithm.HMAC_SHA_256: "sha256",
    Algorithm.HMAC_SHA_384: "sha384",
    Algorithm.HMAC_SHA_512: "sha512",
}
NONCE = bytes(range(12))


def key(algorithm: Algorithm) -> bytes:
    """Return some key of an algorithm."""
    return bytes(range(ALGORITHMS[algorithm].key_bytes))


class TestAEAD:
    @pytest.mark.parametrize("algorithm", AEADS)
    def test_is_the_cipher_of_its_name(self, algorithm: Algorithm) -> None:
        """
        The ciphertext is that of the cipher and the key length in the name.
        """
        cipher = (
            ChaCha20Poly1305 if algorithm is Algorithm.CHACHA20_POLY1305 else AESGCM
        )
        expected = cipher(key(algorithm)).encrypt(NONCE, b"plain", b"aad")
        handle = PYCA.load(algorithm, key(algorithm))

        assert expected == handle.seal(NONCE, b"plain", b"aad")
        assert b"plain" == handle.open(NONCE, expected, b"aad")

    @pytest.mark.parametrize("algorithm", AEADS)
    def test_every_changed_byte(self, algorithm: Algorithm) -> None:
        """
        A ciphertext with one byte changed, or cut, is not decrypted.
        """
        handle = PYCA.load(algorithm, key(algorithm))
        good = handle.seal(NONCE, b"plain", b"aad")
        for place in range(len(good)):
            changed = bytearray(good)
            changed[place] ^= 1
            for wrong in (bytes(changed), good[:place]):
                with pytest.raises(DecryptionError):
                    handle.open(NONCE, wrong, b"aad")
        with pytest.raises(DecryptionError):
            handle.open(NONCE, good, b"other")

    @pytest.mark.parametrize("algorithm", AEADS)
    @pytest.mark.parametrize("size", [0, 8, 11, 13, 16])
    def test_nonce_of_wrong_length(self, algorithm: Algorithm, size: int) -> None:
        """
        A nonce has 12 bytes, whatever the library would take.
        """
        with pytest.raises(InputSizeError) as caught:
            PYCA.load(algorithm, key(algorithm)).seal(bytes(size), b"", b"")

        assert "nonce" == caught.value.facts["field"]


class TestMAC:
    @pytest.mark.parametrize(
        "algorithm", [a for a in HASHES if ALGORITHMS[a].family is Family.MAC]
    )
    @given(message=st.binary(max_size=300))
    def test_as_another_implementation(
        self, algorithm: Algorithm, message: bytes
    ) -> None:
        """
        The MAC is the one that another implementation computes, at full length.
        """
        made = PYCA.load(algorithm, key(algorithm)).mac(message)

        assert hmac.digest(key(algorithm), message, HASHES[algorithm]) == made
        assert ALGORITHMS[algorithm].mac_bytes == len(made)


class TestKeyWrap:
    @pytest.mark.parametrize("algorithm", WRAPPING)
    @given(data=st.binary(min_size=1, max_size=100))
    def test_there_and_back_padded(self, algorithm: Algorithm, data: bytes) -> None:
        """
        With padding, data of any length comes back, from whole blocks and one more.
        """
        handle = PYCA.load(algorithm, key(algorithm))
        wrapped = handle.wrap(data, padded=True)

        assert data == handle.unwrap(wrapped, padded=True)
        assert 8 + (len(data) + 7) // 8 * 8 == len(wrapped)
        with pytest.raises(DecryptionError):
            handle.unwrap(wrapped, padded=False)

    @pytest.mark.parametrize("algorithm", WRAPPING)
    @given(blocks=st.integers(2, 12))
    def test_there_and_back(self, algorithm: Algorithm, blocks: int) -> None:
        """
        Without padding, two blocks of 8 bytes or more come back.
        """
        handle = PYCA.load(algorithm, key(algorithm))
        wrapped = handle.wrap(bytes(8 * blocks), padded=False)

        assert bytes(8 * blocks) == handle.unwrap(wrapped, padded=False)
        assert 8 * blocks + 8 == len(wrapped)
        with pytest.raises(DecryptionError):
            handle.unwrap(wrapped, padded=True)

    @pytest.mark.parametrize(
        ("size", "padded"),
        [(0, True), (0, False), (8, False), (15, False), (17, False), (31, False)],
    )
    def test_length_that_does_not_fit(self, size: int, padded: bool) -> None:
        """
        Data that can't be wrapped so is refused, and the limits are named.
        """
        handle = PYCA.load(Algorithm.AES_256_KW, key(Algorithm.AES_256_KW))
        with pytest.raises(
            InputSizeError, match="bytes" if padded else "a multiple of 8"
        ) as e:
            handle.wrap(bytes(size), padded=padded)

        assert "data" == e.value.facts["field"]
        assert (1 if padded else 16) == e.value.facts["minimum"]

    @pytest.mark.parametrize("padded", [True, False])
    def test_every_changed_byte(self, padded: bool) -> None:
        """
        What was wrapped and changed, cut or lengthened is not unwrapped.
        """
        handle = PYCA.load(Algorithm.AES_128_KW, key(Algorithm.AES_128_KW))
        good = handle.wrap(bytes(range(32)), padded=padded)
        for place in range(len(good)):
            changed = bytearray(good)
            changed[place] ^= 1
            for wrong in (bytes(changed), good[:place], good + bytes(place + 1)):
                with pytest.raises(DecryptionError):
                    handle.unwrap(wrong, padded=padded)

    def test_other_key(self) -> None:
        """
        Another key unwraps nothing.
        """
        wrapped = PYCA.load(Algorithm.AES_256_KW, bytes(32)).wrap(b"k", padded=True)

        with pytest.raises(DecryptionError):
            PYCA.load(Algorithm.AES_256_KW, b"\1" * 32).unwrap(wrapped, padded=True)


class TestDerive:
    @pytest.mark.parametrize(
        "algorithm", [a for a in HASHES if ALGORITHMS[a].family is Family.KDF]
    )
    @given(
        salt=st.binary(max_size=80),
        info=st.binary(max_size=80),
        length=st.integers(1, 200),
    )
    def test_as_the_rfc_says(
        self, algorithm: Algorithm, salt: bytes, info: bytes, length: int
    ) -> None:
        """
        The bytes are those of extract and expand, written out; no salt means zeros.
        """
        name = HASHES[algorithm]
        zeros = bytes(hashlib.new(name).digest_size)
        extracted = hmac.digest(salt or zeros, key(algorithm), name)
        expected, block = b"", b""
        for counter in range(1, 255):
            block = hmac.digest(extracted, block + info + bytes([counter]), name)
            expected += block
            if len(expected) >= length:
                break

        made = PYCA.load(algorithm, key(algorithm)).derive(salt, info, length)

        assert expected[:length] == made

    @pytest.mark.parametrize(
        ("algorithm", "longest"),
        [
            (Algorithm.HKDF_SHA_256, 8160),
            (Algorithm.HKDF_SHA_384, 12240),
            (Algorithm.HKDF_SHA_512, 16320),
        ],
    )
    def test_limits(self, algorithm: Algorithm, longest: int) -> None:
        """
        At least one byte and at most 255 digests can be derived.
        """
        handle = PYCA.load(algorithm, key(algorithm))

        assert longest == len(handle.derive(b"", b"", longest))
        for length in (-1, 0, longest + 1):
            with pytest.raises(InputSizeError) as caught:
                handle.derive(b"", b"", length)
            assert ("length", longest) == (
                caught.value.facts["field"],
                caught.value.facts["maximum"],
            )


@pytest.mark.parametrize(
    "algorithm", [a for a in SERVED if not ALGORITHMS[a].is_asymmetric]
)
def test_nothing_else(algorithm: Algorithm) -> None:
    """
    A symmetric key does what its family does and refuses everything else.
    """
    handle = PYCA.load(algorithm, key(algorithm))
    family = ALGORITHMS[algorithm].family
    attempts: dict[Family, Callable[[], object]] = {
        Family.AEAD: lambda: handle.seal(NONCE, b"", b""),
        Family.MAC: lambda: handle.mac(b""),
        Family.KEY_WRAP: lambda: handle.wrap(b"k", padded=True),
        Family.KDF: lambda: handle.derive(b"", b"", 1),
        Family.ML_KEM: handle.encapsulate,
        Family.ECDH: lambda: handle.agree(b""),
    }
    for other, attempt in attempts.items():
        if other is family:
            attempt()
        else:
            with pytest.raises(UnsupportedOperationError):
                attempt()
