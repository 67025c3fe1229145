# SPDX-License-Identifier: MIT
"""
Made here and accepted by OpenSSL's command line, and the other way round.

Every round has a fresh key, made here and there by turns (but for RSA), and data,
contexts and labels of random lengths. ``FERROHSM_INTEROP`` says how many rounds there
are for each way to use an algorithm; the sets of SLH-DSA that sign slowly have at most
20, and the slowest of them sign only where it is set.

The command line has no AES-GCM and no ChaCha20-Poly1305 (``openssl enc`` takes no AEAD)
and no composites: these are not here. Where the algorithm is served by the operating
system's own OpenSSL, both sides are one library, and what is shown is that keys,
parameters and encodings are the standard's; other libraries check its numbers.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from hsm_core import primitives
from hsm_core._internal.crypto.libcrypto import LibcryptoProvider
from hsm_core._internal.lib.entropy import SystemEntropy
from hsm_core.algorithms import (
    ALGORITHMS,
    Algorithm,
    Cost,
    Family,
    HashAlgorithm,
    SignatureScheme,
    spec,
)
from hsm_core.errors import InvalidInputError, SignatureMismatchError
from hsm_core.protocols import KeyHandle
from tests.core.openssl_program import OpenSSL

IS_LONG = "FERROHSM_INTEROP" in os.environ
ROUNDS = int(os.environ.get("FERROHSM_INTEROP", "3"))
SLOW_ROUNDS = min(ROUNDS, 20) if IS_LONG else 1

PROVIDER = LibcryptoProvider()
HASHES = tuple(HashAlgorithm)
FIXED = frozenset({Family.RSA})
"""Families whose keys take so long to make that one serves all rounds."""


def of_family(*families: Family) -> list[Algorithm]:
    """Return the algorithms of some families."""
    return [row.algorithm for row in ALGORITHMS.values() if row.family in families]


SIGNING = [
    (algorithm, scheme)
    for algorithm in of_family(
        Family.RSA, Family.ECDSA, Family.EDDSA, Family.ML_DSA, Family.SLH_DSA
    )
    for scheme in spec(algorithm).schemes
    if IS_LONG or not algorithm.endswith(("192s", "256s"))
]
AGREEING = of_family(Family.ECDSA, Family.ECDH)
SEEDED = of_family(Family.ML_KEM, Family.ML_DSA)
ELSEWHERE = of_family(
    Family.AEAD, Family.AES, Family.COMPOSITE_KEM, Family.COMPOSITE_SIGNATURE
)


@pytest.fixture
def openssl(tmp_path: Path) -> OpenSSL:
    """Give the program in an empty folder."""
    return OpenSSL(tmp_path)


@dataclass(frozen=True, slots=True)
class Pair:
    """
    A key pair, in bytes for OpenSSL and loaded for us.

    Attributes:
        material: PKCS#8.
        public_der: SubjectPublicKeyInfo.
        private: The handle of the one.
        public: The handle of the other.
    """

    material: bytes
    public_der: bytes
    private: KeyHandle
    public: KeyHandle


def pair_of(algorithm: Algorithm, material: bytes, public_der: bytes) -> Pair:
    """Load both halves of a key."""
    return Pair(
        material,
        public_der,
        primitives.load_private_key(algorithm, material),
        primitives.load_public_key(algorithm, public_der),
    )


@cache
def own_pair(algorithm: Algorithm) -> Pair:
    """Return one key of ours for all rounds."""
    made = primitives.generate(algorithm)
    return pair_of(algorithm, made.material, made.public_der)


def rounds(
    openssl: OpenSSL, algorithm: Algorithm
) -> Iterator[tuple[int, random.Random, Pair]]:
    """Give number, random numbers and key of each round."""
    row = spec(algorithm)
    is_slow = row.use_cost is Cost.SLOW and algorithm.value.endswith("s")
    for number in range(SLOW_ROUNDS if is_slow else ROUNDS):
        rng = random.Random(f"{algorithm} {number}")
        if row.family in FIXED:
            yield number, rng, own_pair(algorithm)
        elif number % 2 != is_slow:  # to make a slow key here is to sign with it, too
            theirs = openssl.private_key(algorithm)
            yield number, rng, pair_of(algorithm, theirs, openssl.public_key(theirs))
        else:
            made = primitives.generate(algorithm)
            yield number, rng, pair_of(algorithm, made.material, made.public_der)


def some_bytes(
    rng: random.Random, number: int, longest: int, shortest: int = 0
) -> bytes:
    """Return random bytes, of both extreme lengths first."""
    sizes = {0: shortest, 1: longest}
    return rng.randbytes(sizes.get(number, rng.randint(shortest, longest)))


def flipped(data: bytes) -> bytes:
    """Return the bytes with one bit changed."""
    return bytes([data[0] ^ 1]) + data[1:]


def option_name(hashed: HashAlgorithm) -> str:
    """Return OpenSSL's name of a hash."""
    return hashed.value.replace("-", "").lower()


def signing_options(
    scheme: SignatureScheme, hashed: HashAlgorithm | None, context: bytes
) -> list[str]:
    """Return the options of ``openssl pkeyutl`` for a message."""
    options = ["-rawin"]
    if hashed:
        options += ["-digest", option_name(hashed)]
    if scheme is SignatureScheme.RSASSA_PSS and hashed:
        options += ["-pkeyopt", "rsa_padding_mode:pss"]
        options += ["-pkeyopt", f"rsa_pss_saltlen:{hashed.digest_bytes}"]
        options += ["-pkeyopt", f"rsa_mgf1_md:{option_name(hashed)}"]
    if context:
        options += ["-pkeyopt", f"hexcontext-string:{context.hex()}"]
    return options


class TestSignatures:
    @pytest.mark.parametrize(("algorithm", "scheme"), SIGNING)
    def test_messages(
        self, openssl: OpenSSL, algorithm: Algorithm, scheme: SignatureScheme
    ) -> None:
        """
        Each verifies what the other signs, under the same context, and no change of it.
        """
        row = spec(algorithm)
        for number, rng, pair in rounds(openssl, algorithm):
            hashed = row.hashes[number % len(row.hashes)] if row.hashes else None
            # The program reads no empty message.
            message = some_bytes(rng, number, 5000, 1)
            context = some_bytes(rng, number, row.max_context_bytes)
            options = signing_options(scheme, hashed, context)

            given: Any = {"scheme": scheme, "hash": hashed, "context": context}
            ours = primitives.sign(algorithm, pair.private, message, **given)
            theirs = openssl.sign(pair.material, message, *options)

            assert openssl.verifies(pair.public_der, message, ours, *options)
            primitives.verify(algorithm, pair.public, theirs, message, **given)
            changed = flipped(message)
            if number < 2:
                assert not openssl.verifies(pair.public_der, changed, ours, *options)
            with pytest.raises(SignatureMismatchError):
                primitives.verify(algorithm, pair.public, theirs, changed, **given)

    @pytest.mark.parametrize("algorithm", of_family(Family.ML_DSA))
    def test_mu(self, openssl: OpenSSL, algorithm: Algorithm) -> None:
        """
        Each verifies what the other signs of mu, which is a signature of the message.
        """
        for number, rng, pair in rounds(openssl, algorithm):
            message = some_bytes(rng, number, 5000, 1)
            context = some_bytes(rng, number, 255)
            mu = primitives.external_mu(algorithm, pair.public, message, context)
            by_mu = ("-pkeyopt", "mu:1")
            whole = signing_options(SignatureScheme.ML_DSA, None, context)

            ours = primitives.sign(algorithm, pair.private, mu=mu)
            theirs = openssl.sign(pair.material, mu, *by_mu)

            assert openssl.verifies(pair.public_der, mu, ours, *by_mu)
            assert openssl.verifies(pair.public_der, message, ours, *whole)
            primitives.verify(algorithm, pair.public, theirs, mu=mu)
            primitives.verify(algorithm, pair.public, theirs, message, context=context)


class TestSecrets:
    @pytest.mark.parametrize("algorithm", of_family(Family.ML_KEM))
    def test_encapsulation(self, openssl: OpenSSL, algorithm: Algorithm) -> None:
        """
        Each decapsulates what the other encapsulates, and rejects alike.
        """
        for _, _, pair in rounds(openssl, algorithm):
            ours = primitives.encapsulate(algorithm, pair.public)
            secret, ciphertext = openssl.encapsulate(pair.public_der)
            changed = flipped(ciphertext)

            assert ours.shared_secret == openssl.decapsulate(
                pair.material, ours.ciphertext
            )
            assert secret == primitives.decapsulate(algorithm, pair.private, ciphertext)
            rejected = primitives.decapsulate(algorithm, pair.private, changed)
            assert openssl.decapsulate(pair.material, changed) == rejected != secret

    @pytest.mark.parametrize("algorithm", AGREEING)
    def test_ecdh(self, openssl: OpenSSL, algorithm: Algorithm) -> None:
        """
        Each agrees with the other on one secret, whoever made the keys.
        """
        for _, _, ours in rounds(openssl, algorithm):
            theirs = openssl.private_key(algorithm)
            their_public = openssl.public_key(theirs)

            secret = primitives.ecdh(algorithm, ours.private, their_public)

            assert secret == openssl.agree(theirs, ours.public_der)
            assert secret == openssl.agree(ours.material, their_public)
            assert secret == primitives.ecdh(algorithm, theirs, ours.public_der)

    @pytest.mark.parametrize("algorithm", of_family(Family.RSA))
    def test_oaep(self, openssl: OpenSSL, algorithm: Algorithm) -> None:
        """
        Each decrypts what the other encrypts, with the same hashes and label.
        """
        size = spec(algorithm).modulus_bits // 8
        for number, rng, pair in rounds(openssl, algorithm):
            hashed, mgf = HASHES[number % 3], HASHES[number // 3 % 3]
            message = some_bytes(rng, number, size - 2 * hashed.digest_bytes - 2)
            label = some_bytes(rng, number, 100)
            options = [
                *("-pkeyopt", "rsa_padding_mode:oaep"),
                *("-pkeyopt", f"rsa_oaep_md:{option_name(hashed)}"),
                *("-pkeyopt", f"rsa_mgf1_md:{option_name(mgf)}"),
            ]
            options += ["-pkeyopt", f"rsa_oaep_label:{label.hex()}"] if label else []

            given: Any = {"hash": hashed, "mgf_hash": mgf, "label": label}
            ours = primitives.oaep_encrypt(algorithm, pair.public, message, **given)
            theirs = openssl.encrypt(pair.public_der, message, *options)

            assert message == openssl.decrypt(pair.material, ours, *options)
            assert message == primitives.oaep_decrypt(
                algorithm, pair.private, theirs, **given
            )


class TestSymmetric:
    @pytest.mark.parametrize("algorithm", of_family(Family.MAC))
    def test_mac(self, openssl: OpenSSL, algorithm: Algorithm) -> None:
        """
        Both compute the same MAC.
        """
        row = spec(algorithm)
        for number in range(ROUNDS):
            rng = random.Random(f"{algorithm} {number}")
            key, message = rng.randbytes(row.key_bytes), some_bytes(rng, number, 5000)

            theirs = openssl.run(
                *("mac", "-digest", algorithm.value.removeprefix("HMAC-")),
                *("-macopt", f"hexkey:{key.hex()}", "-binary"),
                *("-in", openssl.file("data", message), "HMAC"),
            )

            assert theirs == primitives.mac(algorithm, key, message)

    @pytest.mark.parametrize("algorithm", of_family(Family.KDF))
    def test_hkdf(self, openssl: OpenSSL, algorithm: Algorithm) -> None:
        """
        Both derive the same bytes, by a key of HKDF and by the bare function.
        """
        row = spec(algorithm)
        (hashed,) = row.hashes
        for number in range(ROUNDS):
            rng = random.Random(f"{algorithm} {number}")
            key = rng.randbytes(row.key_bytes)
            salt, info = (some_bytes(rng, number, 100) for _ in range(2))
            length = len(some_bytes(rng, number, 255 * hashed.digest_bytes, 1))

            theirs = openssl.run(
                *("kdf", "-binary", "-keylen", str(length)),
                *("-kdfopt", f"digest:{hashed}", "-kdfopt", f"hexkey:{key.hex()}"),
                *("-kdfopt", f"hexsalt:{salt.hex()}"),
                *("-kdfopt", f"hexinfo:{info.hex()}", "HKDF"),
            )

            assert theirs == primitives.hkdf(
                hashed, key, salt=salt, info=info, length=length
            )
            handle = primitives.load_private_key(algorithm, key)
            assert theirs == handle.derive(salt, info, length)

    @pytest.mark.parametrize("padded", [False, True])
    @pytest.mark.parametrize("algorithm", of_family(Family.KEY_WRAP))
    def test_key_wrap(
        self, openssl: OpenSSL, algorithm: Algorithm, padded: bool
    ) -> None:
        """
        Each unwraps what the other wraps, and both wrap alike.
        """
        bits = 8 * spec(algorithm).key_bytes
        name = f"-id-aes{bits}-wrap-pad" if padded else f"-id-aes{bits}-wrap"
        start = "a65959a6" if padded else "a6" * 8
        for number in range(ROUNDS):
            rng = random.Random(f"{algorithm} {padded} {number}")
            key = rng.randbytes(bits // 8)
            data = (
                some_bytes(rng, number, 600, 1)
                if padded
                else rng.randbytes(8 * rng.randint(2, 75))
            )
            options = ("enc", name, "-K", key.hex(), "-iv", start)

            ours = primitives.key_wrap(algorithm, key, data, padded=padded)
            theirs = openssl.run(*options, "-e", "-in", openssl.file("data", data))

            assert theirs == ours
            assert data == openssl.run(
                *options, "-d", "-in", openssl.file("wrapped", ours)
            )
            assert data == primitives.key_unwrap(algorithm, key, theirs, padded=padded)
            assert openssl.refuses(
                *options, "-d", "-in", openssl.file("wrapped", flipped(ours))
            )


class TestPrivateForms:
    """PKCS#8 of RFC 9881 and RFC 9935 as OpenSSL writes it."""

    @pytest.mark.parametrize("algorithm", [*SEEDED, *of_family(Family.SLH_DSA)])
    def test_ours(self, openssl: OpenSSL, algorithm: Algorithm) -> None:
        """
        OpenSSL reads both halves of our keys and writes the same bytes again.
        """
        material = PROVIDER.generate(algorithm, SystemEntropy())
        family = spec(algorithm).family.value.lower()
        form = ("-provparam", f"{family}.output_formats=seed-only")

        again = openssl.run(
            *("pkey", "-in", openssl.file("ours.der", material)),
            *("-inform", "DER", "-outform", "DER"),
            *(form if algorithm in SEEDED else ()),
        )

        assert material == again
        public = PROVIDER.load(algorithm, material).public_der()
        assert public == openssl.public_key(material)


class TestOtherForms:
    """Keys that OpenSSL writes and that have another form here."""

    @pytest.mark.parametrize(
        "form", [("-ec_param_enc", "explicit"), ("-ec_conv_form", "compressed")]
    )
    def test_points(self, openssl: OpenSSL, form: tuple[str, str]) -> None:
        """
        A curve by its parameters, and a compressed point, are refused.
        """
        ours = own_pair(Algorithm.EC_P256).public_der
        theirs = openssl.run(
            *("pkey", "-pubin", "-in", openssl.file("public.der", ours)),
            *("-inform", "DER", "-pubout", "-outform", "DER", *form),
        )

        assert theirs != ours
        with pytest.raises(InvalidInputError):
            primitives.load_public_key(Algorithm.EC_P256, theirs)

    def test_key_bound_to_pss(self, openssl: OpenSSL) -> None:
        """
        A key that may be used for RSASSA-PSS only is refused in both halves.
        """
        private = openssl.run(
            *("genpkey", "-algorithm", "RSA-PSS", "-outform", "DER"),
            *("-pkeyopt", "rsa_keygen_bits:2048"),
        )

        with pytest.raises(InvalidInputError):
            primitives.load_private_key(Algorithm.RSA_2048, private)
        with pytest.raises(InvalidInputError):
            primitives.load_public_key(Algorithm.RSA_2048, openssl.public_key(private))


def test_every_algorithm_is_covered() -> None:
    """
    Every algorithm of the table is exchanged here, or OpenSSL's program has it not.
    """
    covered = {
        *(algorithm for algorithm, _ in SIGNING),
        *of_family(Family.SLH_DSA),  # the slowest sets in `test_ours` alone
        *AGREEING,
        *SEEDED,
        *of_family(Family.MAC, Family.KDF, Family.KEY_WRAP),
    }

    assert set(ALGORITHMS) == covered | set(ELSEWHERE)
    assert covered.isdisjoint(ELSEWHERE)
