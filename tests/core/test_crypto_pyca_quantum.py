# SPDX-License-Identifier: MIT
"""ML-KEM and ML-DSA of the provider over cryptography, and their private forms."""

from __future__ import annotations

import hashlib
import subprocess
from dataclasses import replace
from functools import cache

import pytest
from cryptography.exceptions import UnsupportedAlgorithm

from hsm_core._internal.crypto.der import (
    private_key_info,
    read_private_form,
    seed_key_info,
    subject_public_key_info,
)
from hsm_core._internal.crypto.formats import raw_public_key
from hsm_core._internal.crypto.parameters import signature_parameters
from hsm_core._internal.crypto.pyca import PycaCryptoProvider, provider
from hsm_core.algorithms import ALGORITHMS, Algorithm, Family
from hsm_core.errors import InputSizeError, InvalidInputError, SignatureMismatchError
from tests.core.crypto_samples import PYCA, SERVED, material, public_der
from tests.support import require_program, require_service

ML_KEM = [a for a in SERVED if ALGORITHMS[a].family is Family.ML_KEM]
ML_DSA = [a for a in SERVED if ALGORITHMS[a].family is Family.ML_DSA]
BOTH = [*ML_KEM, *ML_DSA]


class FixedEntropy:
    """A source that gives one thing, and remembers what was asked."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def random_bytes(self, length: int, /) -> bytes:
        """Return numbers from zero."""
        self.asked.append(length)
        return bytes(range(length))


class TestKEM:
    @pytest.mark.parametrize("algorithm", ML_KEM)
    def test_there_and_back(self, algorithm: Algorithm) -> None:
        """
        What either half encapsulates, the private half opens; each time anew.
        """
        row = ALGORITHMS[algorithm]
        private = PYCA.load(algorithm, material(algorithm))
        public = PYCA.load_public(algorithm, public_der(algorithm))
        seen = set()
        for handle in (private, public, public):
            secret, ciphertext = handle.encapsulate()

            assert private.decapsulate(ciphertext) == secret
            assert (row.shared_secret_bytes, row.ciphertext_bytes) == (
                len(secret),
                len(ciphertext),
            )
            seen.add(secret)
        assert 3 == len(seen)

    @pytest.mark.parametrize("algorithm", ML_KEM)
    def test_implicit_rejection(self, algorithm: Algorithm) -> None:
        """
        A changed encapsulation gives another secret: the one that FIPS 203 computes.
        """
        handle = PYCA.load(algorithm, material(algorithm))
        secret, ciphertext = handle.encapsulate()
        changed = bytes([ciphertext[0] ^ 1]) + ciphertext[1:]
        seed = read_private_form(algorithm, material(algorithm)).seed

        rejected = handle.decapsulate(changed)

        assert rejected != secret
        assert hashlib.shake_256(seed[32:] + changed).digest(32) == rejected

    @pytest.mark.parametrize("algorithm", ML_KEM)
    @pytest.mark.parametrize("change", [-1, 1])
    def test_ciphertext_of_wrong_length(
        self, algorithm: Algorithm, change: int
    ) -> None:
        """
        An encapsulation has one length, and the error names field and limit.
        """
        size = ALGORITHMS[algorithm].ciphertext_bytes
        handle = PYCA.load(algorithm, material(algorithm))
        for wrong in (size + change, 0):
            with pytest.raises(InputSizeError) as caught:
                handle.decapsulate(bytes(wrong))

            assert {
                "field": "ciphertext",
                "actual": wrong,
                "minimum": size,
                "maximum": size,
            } == caught.value.facts

    @pytest.mark.parametrize("algorithm", ML_KEM)
    def test_coefficients_must_be_reduced(self, algorithm: Algorithm) -> None:
        """
        A public key with a coefficient of 3329 is refused when it is loaded; 3328 not.
        """
        raw = bytearray(raw_public_key(algorithm, public_der(algorithm)))
        for low, accepted in ((0x00, True), (0x01, False)):
            raw[0], raw[1] = low, (raw[1] & 0xF0) | 0xD
            der = subject_public_key_info(algorithm, bytes(raw))
            if accepted:
                assert der == PYCA.load_public(algorithm, der).public_der()
                continue
            with pytest.raises(InvalidInputError) as caught:
                PYCA.load_public(algorithm, der)
            assert "public_key" == caught.value.facts["field"]


class TestSign:
    @pytest.mark.parametrize("algorithm", ML_DSA)
    def test_is_hedged(self, algorithm: Algorithm) -> None:
        """
        Two signatures over a message differ, and both are good.
        """
        parameters = signature_parameters(algorithm)
        handle = PYCA.load(algorithm, material(algorithm))

        made = [handle.sign(b"message", parameters) for _ in range(2)]

        assert made[0] != made[1]
        for signature in made:
            handle.verify(b"message", signature, parameters)

    @pytest.mark.parametrize("algorithm", ML_DSA)
    @pytest.mark.parametrize("size", [1, 254, 255])
    def test_context(self, algorithm: Algorithm, size: int) -> None:
        """
        A signature is good under its own context only.
        """
        parameters = signature_parameters(algorithm, context=bytes(size))
        handle = PYCA.load(algorithm, material(algorithm))
        signature = handle.sign(b"message", parameters)

        handle.verify(b"message", signature, parameters)
        for other in (b"", bytes(size - 1), bytes(size - 1) + b"\1"):
            with pytest.raises(SignatureMismatchError):
                handle.verify(b"message", signature, replace(parameters, context=other))

    @pytest.mark.parametrize("algorithm", ML_DSA)
    def test_long_context(self, algorithm: Algorithm) -> None:
        """
        A context of 256 bytes is refused, to sign and to verify.
        """
        parameters = replace(signature_parameters(algorithm), context=bytes(256))
        handle = PYCA.load(algorithm, material(algorithm))

        with pytest.raises(InputSizeError, match="context"):
            handle.sign(b"message", parameters)
        with pytest.raises(InputSizeError, match="context"):
            handle.verify(b"message", b"", parameters)

    @pytest.mark.parametrize("algorithm", ML_DSA)
    @pytest.mark.parametrize("context", [b"", b"context"])
    def test_external_mu(self, algorithm: Algorithm, context: bytes) -> None:
        """
        A signature over mu is one over the message that it stands for, both ways.
        """
        raw = raw_public_key(algorithm, public_der(algorithm))
        tr = hashlib.shake_256(raw).digest(64)
        framed = b"\0" + bytes([len(context)]) + context + b"message"
        mu = hashlib.shake_256(tr + framed).digest(64)
        whole = signature_parameters(algorithm, context=context)
        external = signature_parameters(algorithm, external_mu=True)
        handle = PYCA.load(algorithm, material(algorithm))

        handle.verify(b"message", handle.sign(mu, external), whole)
        handle.verify(mu, handle.sign(b"message", whole), external)
        with pytest.raises(SignatureMismatchError):
            handle.verify(bytes(64), handle.sign(mu, external), external)


class TestMaterial:
    @pytest.mark.parametrize(
        "algorithm",
        [*BOTH, Algorithm.ED25519, Algorithm.ED448, Algorithm.X25519],
    )
    def test_seed_comes_from_entropy(self, algorithm: Algorithm) -> None:
        """
        The seed of a new key is what the given source drew, once and exactly.
        """
        source = FixedEntropy()
        size = ALGORITHMS[algorithm].private_bytes

        made = PYCA.generate(algorithm, source)

        assert [size] == source.asked
        assert made.endswith(bytes(range(size)))

    @pytest.mark.parametrize("algorithm", BOTH)
    def test_other_forms_are_not_ours(self, algorithm: Algorithm) -> None:
        """
        Material of ours is a seed alone: what is expanded beside it is refused.
        """
        both = openssl_form(algorithm, "seed-priv")

        with pytest.raises(InvalidInputError) as caught:
            PYCA.load(algorithm, both)

        assert "material" == caught.value.facts["field"]

    @pytest.mark.parametrize("algorithm", BOTH)
    def test_both_form(self, algorithm: Algorithm) -> None:
        """
        Seed and expanded key, as OpenSSL writes them, load as the key of the seed.
        """
        handle = PYCA.load_foreign(algorithm, openssl_form(algorithm, "seed-priv"))
        alone = PYCA.load_foreign(algorithm, openssl_form(algorithm, "seed-only"))

        assert alone.public_der() == handle.public_der()

    @pytest.mark.parametrize("algorithm", BOTH)
    def test_expanded_form(self, algorithm: Algorithm) -> None:
        """
        An expanded key alone is refused, and the message says what to do.
        """
        expanded = openssl_form(algorithm, "priv-only")
        for load in (PYCA.load, PYCA.load_foreign):
            with pytest.raises(
                InvalidInputError, match="expanded key without its seed"
            ) as caught:
                load(algorithm, expanded)

            assert "material" == caught.value.facts["field"]

    @pytest.mark.parametrize("algorithm", BOTH)
    def test_expanded_key_of_another_seed(self, algorithm: Algorithm) -> None:
        """
        A seed beside the expanded key of another is refused.
        """
        form = read_private_form(algorithm, openssl_form(algorithm, "seed-priv"))
        other = bytes([form.seed[0] ^ 1]) + form.seed[1:]

        with pytest.raises(InvalidInputError, match="does not match its seed"):
            PYCA.load_foreign(algorithm, both_form(algorithm, other, form.expanded))

    @pytest.mark.parametrize("algorithm", BOTH)
    def test_changed_expanded_key(self, algorithm: Algorithm) -> None:
        """
        Every part of an expanded key must be the seed's, what is secret too.
        """
        form = read_private_form(algorithm, openssl_form(algorithm, "seed-priv"))
        length = len(form.expanded)
        for place in (*range(0, length, length // 23), length - 1):
            changed = bytearray(form.expanded)
            changed[place] ^= 1
            with pytest.raises(InvalidInputError, match="does not match its seed"):
                PYCA.load_foreign(
                    algorithm, both_form(algorithm, form.seed, bytes(changed))
                )

    @pytest.mark.parametrize("algorithm", BOTH)
    @pytest.mark.parametrize("size", [0, 31, 33, 63, 65])
    def test_seed_of_wrong_length(self, algorithm: Algorithm, size: int) -> None:
        """
        A seed of another length, even none, is refused before anything is computed.
        """
        der = seed_key_info(algorithm, bytes(size))
        for load in (PYCA.load, PYCA.load_foreign):
            with pytest.raises(InvalidInputError):
                load(algorithm, der)


@pytest.mark.parametrize(
    ("family", "names"),
    [(Family.ML_KEM, ML_KEM), (Family.ML_DSA, ML_DSA)],
)
def test_build_without_them(
    monkeypatch: pytest.MonkeyPatch, family: Family, names: list[Algorithm]
) -> None:
    """A build of the library without a family serves all else, and raises nothing."""

    def missing(seed: bytes) -> object:
        raise UnsupportedAlgorithm("not in this build")

    for algorithm in names:
        monkeypatch.setitem(provider.FROM_SEED, algorithm, missing)

    assert PYCA.algorithms() - set(names) == PycaCryptoProvider().algorithms()


def test_what_is_served() -> None:
    """The provider serves every classical row, and of the others what is in it."""
    classical = {r.algorithm for r in ALGORITHMS.values() if not r.is_pqc}

    assert (
        classical | set(ML_DSA) | {Algorithm.ML_KEM_768, Algorithm.ML_KEM_1024}
        == PYCA.algorithms()
    )
    assert 3 == len(ML_DSA)


def both_form(algorithm: Algorithm, seed: bytes, expanded: bytes) -> bytes:
    """Return PKCS#8 that holds these two."""
    parts = b"".join(b"\4" + _length(part) + part for part in (seed, expanded))
    return private_key_info(algorithm, b"\x30" + _length(parts) + parts)


def _length(content: bytes) -> bytes:
    size = len(content)
    return bytes([size]) if size < 128 else b"\x82" + size.to_bytes(2, "big")


@cache
def openssl_form(algorithm: Algorithm, form: str) -> bytes:
    """Return the sample key as OpenSSL writes it in one of its forms."""
    key, provider_parameter = material(algorithm), algorithm.value[:6].lower()
    made = subprocess.run(
        [
            *(require_program("openssl"), "pkey", "-inform", "DER", "-outform", "DER"),
            *("-provparam", f"{provider_parameter}.output_formats={form}"),
        ],
        input=key,
        capture_output=True,
        check=False,
        timeout=30,
    )
    require_service("OpenSSL 3.5 or newer", made.returncode == 0)
    return made.stdout
