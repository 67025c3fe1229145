# SPDX-License-Identifier: MIT
"""Authenticated encryption, encryption to a public key, and MACs."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hsm_core._internal.crypto.parameters import signature_parameters
from hsm_core._internal.crypto.pyca import symmetric
from hsm_core.algorithms import ALGORITHMS, Algorithm, Family, HashAlgorithm
from hsm_core.errors import (
    DecryptionError,
    InputSizeError,
    UnsupportedOperationError,
)
from hsm_core.protocols import KeyHandle, OAEPParameters
from tests.core.crypto_samples import (
    ASYMMETRIC,
    OAEP,
    PYCA,
    RSA,
    SERVED,
    label,
    material,
    public_der,
)

KEY, NONCE = bytes(range(32)), bytes(range(12))


def aes(key: bytes = KEY) -> KeyHandle:
    """Return an AES-256-GCM key."""
    return PYCA.load(Algorithm.AES_256_GCM, key)


def limit(algorithm: Algorithm, parameters: OAEPParameters) -> int:
    """Return the longest plaintext (RFC 8017, section 7.1.1, step 1b)."""
    size = ALGORITHMS[algorithm].modulus_bits // 8
    return size - 2 * parameters.hash.digest_bytes - 2


class TestAEAD:
    @given(plaintext=st.binary(max_size=100), aad=st.binary(max_size=40))
    def test_there_and_back(self, plaintext: bytes, aad: bytes) -> None:
        """
        What is sealed opens again, and is longer by a tag of 16 bytes.
        """
        ciphertext = aes().seal(NONCE, plaintext, aad)

        assert len(plaintext) + 16 == len(ciphertext)
        assert plaintext == aes().open(NONCE, ciphertext, aad)

    def test_every_changed_byte(self) -> None:
        """
        A ciphertext with any one bit changed doesn't open.
        """
        ciphertext = aes().seal(NONCE, b"plaintext", b"aad")
        for bit in range(8 * len(ciphertext)):
            changed = bytearray(ciphertext)
            changed[bit // 8] ^= 1 << bit % 8
            with pytest.raises(DecryptionError):
                aes().open(NONCE, bytes(changed), b"aad")

    @pytest.mark.parametrize(
        ("key", "nonce", "aad"),
        [
            (bytes(32), NONCE, b"aad"),
            (KEY, bytes(12), b"aad"),
            (KEY, NONCE, b""),
            (KEY, NONCE[:-1], b"aad"),
            (KEY, NONCE + b"\0", b"aad"),
            (KEY, b"", b"aad"),
        ],
    )
    def test_other_circumstances(self, key: bytes, nonce: bytes, aad: bytes) -> None:
        """
        Another key, nonce or additional data is one failure without detail.
        """
        ciphertext = aes().seal(NONCE, b"plaintext", b"aad")

        with pytest.raises(DecryptionError) as caught:
            aes(key).open(nonce, ciphertext, aad)

        assert {} == caught.value.facts
        assert "The ciphertext could not be decrypted." == str(caught.value)

    @pytest.mark.parametrize("length", range(16))
    def test_shorter_than_a_tag(self, length: int) -> None:
        """
        What is too short to hold a tag doesn't open.
        """
        with pytest.raises(DecryptionError):
            aes().open(NONCE, bytes(length), b"")

    @pytest.mark.parametrize("length", [0, 11, 13, 16])
    def test_other_nonce_lengths(self, length: int) -> None:
        """
        A nonce to seal with has 12 bytes.
        """
        with pytest.raises(InputSizeError) as caught:
            aes().seal(bytes(length), b"", b"")

        assert "nonce must be 12 bytes, got" in str(caught.value)
        assert "nonce" == caught.value.facts["field"]

    @pytest.mark.parametrize("field", ["plaintext", "aad"])
    def test_limits(self, monkeypatch: pytest.MonkeyPatch, field: str) -> None:
        """
        More than the library can take in one call is refused by name.
        """
        monkeypatch.setattr(symmetric, "MOST_BYTES", 20)
        arguments = {"plaintext": b"", "aad": b""} | {field: bytes(21)}

        with pytest.raises(InputSizeError) as caught:
            aes().seal(NONCE, arguments["plaintext"], arguments["aad"])

        assert field == caught.value.facts["field"]
        assert 20 == caught.value.facts["maximum"]

    def test_threads_share_a_key(self) -> None:
        """
        Many threads seal and open with one handle at a time.
        """
        handle = aes()

        def there_and_back(number: int) -> bytes:
            nonce = number.to_bytes(12, "big")
            return handle.open(nonce, handle.seal(nonce, nonce, b""), b"")

        with ThreadPoolExecutor(8) as pool:
            opened = list(pool.map(there_and_back, range(500)))

        assert [number.to_bytes(12, "big") for number in range(500)] == opened


class TestOAEP:
    @pytest.mark.parametrize("algorithm", RSA)
    @pytest.mark.parametrize("parameters", OAEP, ids=label)
    def test_there_and_back(
        self, algorithm: Algorithm, parameters: OAEPParameters
    ) -> None:
        """
        What is encrypted to the public half decrypts, empty or as long as may be.
        """
        public = PYCA.load_public(algorithm, public_der(algorithm))
        private = PYCA.load(algorithm, material(algorithm))
        labelled = replace(parameters, label=b"label")
        for plaintext in (b"", b"plaintext", bytes(limit(algorithm, parameters))):
            ciphertext = public.encrypt(plaintext, labelled)

            assert ALGORITHMS[algorithm].modulus_bits // 8 == len(ciphertext)
            assert plaintext == private.decrypt(ciphertext, labelled)

    @pytest.mark.parametrize("algorithm", RSA)
    @pytest.mark.parametrize("hashed", HashAlgorithm)
    def test_too_long(self, algorithm: Algorithm, hashed: HashAlgorithm) -> None:
        """
        One byte too many is refused with the name and the limit.
        """
        parameters = OAEPParameters(hash=hashed)
        most = limit(algorithm, parameters)

        with pytest.raises(InputSizeError) as caught:
            PYCA.load(algorithm, material(algorithm)).encrypt(
                bytes(most + 1), parameters
            )

        assert {
            "field": "plaintext",
            "actual": most + 1,
            "minimum": 0,
            "maximum": most,
        } == caught.value.facts

    @pytest.mark.parametrize(
        "other",
        [
            OAEPParameters(label=b"another"),
            OAEPParameters(hash=HashAlgorithm.SHA_512, label=b"label"),
            OAEPParameters(mgf_hash=HashAlgorithm.SHA_512, label=b"label"),
            OAEPParameters(),
        ],
    )
    def test_other_parameters(self, other: OAEPParameters) -> None:
        """
        Other parameters are one failure without detail.
        """
        handle = PYCA.load(Algorithm.RSA_2048, material(Algorithm.RSA_2048))
        ciphertext = handle.encrypt(b"plaintext", OAEPParameters(label=b"label"))

        with pytest.raises(DecryptionError) as caught:
            handle.decrypt(ciphertext, other)

        assert {} == caught.value.facts

    @pytest.mark.parametrize("length", [0, 1, 255, 257, 512])
    def test_other_lengths(self, length: int) -> None:
        """
        A ciphertext of another length than the modulus doesn't decrypt.
        """
        handle = PYCA.load(Algorithm.RSA_2048, material(Algorithm.RSA_2048))

        with pytest.raises(DecryptionError):
            handle.decrypt(bytes(length), OAEPParameters())

    @pytest.mark.parametrize("byte", [0x00, 0xFF])
    def test_no_ciphertext(self, byte: int) -> None:
        """
        Zero, and a number above the modulus, don't decrypt.
        """
        handle = PYCA.load(Algorithm.RSA_2048, material(Algorithm.RSA_2048))

        with pytest.raises(DecryptionError):
            handle.decrypt(bytes([byte]) * 256, OAEPParameters())


class TestMAC:
    @given(data=st.binary(max_size=300))
    def test_as_the_standard_library(self, data: bytes) -> None:
        """
        The MAC is the one that another implementation computes.
        """
        handle = PYCA.load(Algorithm.HMAC_SHA_256, KEY)

        assert hmac.new(KEY, data, hashlib.sha256).digest() == handle.mac(data)

    def test_threads_share_a_key(self) -> None:
        """
        Many threads compute with one handle at a time.
        """
        handle = PYCA.load(Algorithm.HMAC_SHA_256, KEY)
        messages = [str(number).encode() for number in range(500)]

        with ThreadPoolExecutor(8) as pool:
            macs = list(pool.map(handle.mac, messages))

        assert [hmac.digest(KEY, m, "sha256") for m in messages] == macs


def uses(handle: KeyHandle) -> dict[str, object]:
    """Return what each method of a handle does when it is called."""
    signs = ALGORITHMS[handle.algorithm].is_signature
    parameters = signature_parameters(handle.algorithm if signs else Algorithm.RSA_2048)
    oaep = OAEPParameters()
    outcomes: dict[str, object] = {}
    attempts: dict[str, Callable[[], object]] = {
        "sign": lambda: handle.sign(b"", parameters),
        "verify": lambda: handle.verify(b"", b"", parameters),
        "seal": lambda: handle.seal(NONCE, b"", b""),
        "open": lambda: handle.open(NONCE, b"", b""),
        "encrypt": lambda: handle.encrypt(b"", oaep),
        "decrypt": lambda: handle.decrypt(b"", oaep),
        "mac": lambda: handle.mac(b""),
        "encapsulate": handle.encapsulate,
        "decapsulate": lambda: handle.decapsulate(b""),
        "agree": lambda: handle.agree(b""),
        "derive": lambda: handle.derive(b"", b"", 1),
        "wrap": lambda: handle.wrap(b"", padded=True),
        "unwrap": lambda: handle.unwrap(b"", padded=True),
    }
    for name, attempt in attempts.items():
        try:
            attempt()
        except UnsupportedOperationError as error:
            outcomes[name] = error.facts["algorithm"]
        except Exception:
            outcomes[name] = "offered"
        else:
            outcomes[name] = "offered"
    return outcomes


OFFERED = {
    Family.AEAD: {"seal", "open"},
    Family.RSA: {"sign", "verify", "encrypt", "decrypt"},
    Family.ECDSA: {"sign", "verify", "agree"},
    Family.EDDSA: {"sign", "verify"},
    Family.ECDH: {"agree"},
    Family.MAC: {"mac"},
    Family.KEY_WRAP: {"wrap", "unwrap"},
    Family.KDF: {"derive"},
    Family.ML_KEM: {"encapsulate", "decapsulate"},
    Family.ML_DSA: {"sign", "verify"},
}
PUBLIC = {"verify", "encrypt", "encapsulate"}


class TestUnsupported:
    @pytest.mark.parametrize("algorithm", SERVED)
    def test_only_what_the_family_offers(self, algorithm: Algorithm) -> None:
        """
        A key refuses what its algorithm has not, and names the algorithm.
        """
        outcomes = uses(PYCA.load(algorithm, material(algorithm)))
        offered = {name for name, outcome in outcomes.items() if outcome == "offered"}
        without = {"agree"} if algorithm is Algorithm.EC_P521 else set()

        assert OFFERED[ALGORITHMS[algorithm].family] - without == offered
        assert {algorithm.value, "offered"} == set(outcomes.values())

    @pytest.mark.parametrize("algorithm", ASYMMETRIC)
    def test_public_half(self, algorithm: Algorithm) -> None:
        """
        A public key can't do what takes the private one.
        """
        outcomes = uses(PYCA.load_public(algorithm, public_der(algorithm)))
        offered = {name for name, outcome in outcomes.items() if outcome == "offered"}

        assert OFFERED[ALGORITHMS[algorithm].family] & PUBLIC == offered

    @pytest.mark.parametrize("algorithm", SERVED)
    def test_repr(self, algorithm: Algorithm) -> None:
        """
        A handle shows its algorithm and nothing of its key.
        """
        handle = PYCA.load(algorithm, material(algorithm))

        assert f"<{type(handle).__name__} {algorithm}>" == repr(handle)
