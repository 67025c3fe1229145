# SPDX-License-Identifier: MIT
"""The operating system's OpenSSL as a provider."""

from __future__ import annotations

import ctypes
import gc
import hashlib
import hmac
import os
import re
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import mldsa, mlkem
from hypothesis import given, settings
from hypothesis import strategies as st

from hsm_core._internal.crypto.der import (
    private_key_info,
    read_private_form,
    read_private_key_info,
    read_public_key_info,
    seed_key_info,
    subject_public_key_info,
)
from hsm_core._internal.crypto.libcrypto import LibcryptoProvider, library
from hsm_core._internal.crypto.libcrypto.library import (
    Buffer,
    Libcrypto,
    LibcryptoError,
    find_libcrypto,
    key_from_private,
    key_from_public,
    key_from_seed,
    seed_bytes,
)
from hsm_core._internal.crypto.libcrypto.provider import (
    KEMPrivateHandle,
    KEMPublicHandle,
    LibcryptoSignaturePrivateHandle,
)
from hsm_core._internal.crypto.parameters import MU_BYTES, signature_parameters
from hsm_core._internal.lib.entropy import SystemEntropy
from hsm_core.algorithms import ALGORITHMS, Algorithm, Family, spec
from hsm_core.errors import (
    AlgorithmUnavailableError,
    EntropyUnavailableError,
    HSMError,
    InputSizeError,
    InvalidInputError,
    SignatureMismatchError,
    UnsupportedOperationError,
)
from tests.core.libcrypto_ledger import Ledger
from tests.support import require_service
from tests.vectors.deterministic import encapsulate_from, sign_deterministic

MESSAGE = b"a message"

ML_KEM, ML_DSA, SLH_DSA = (
    [row.algorithm for row in ALGORITHMS.values() if row.family is family]
    for family in (Family.ML_KEM, Family.ML_DSA, Family.SLH_DSA)
)
QUICK_SIGNING = [*ML_DSA, Algorithm.SLH_DSA_SHA2_128F]
QUICK = [*ML_KEM, *QUICK_SIGNING]

PYCA_SIGNING: dict[
    Algorithm,
    type[mldsa.MLDSA44PrivateKey | mldsa.MLDSA65PrivateKey | mldsa.MLDSA87PrivateKey],
] = {
    Algorithm.ML_DSA_44: mldsa.MLDSA44PrivateKey,
    Algorithm.ML_DSA_65: mldsa.MLDSA65PrivateKey,
    Algorithm.ML_DSA_87: mldsa.MLDSA87PrivateKey,
}
PYCA_KEM: dict[
    Algorithm, type[mlkem.MLKEM768PrivateKey | mlkem.MLKEM1024PrivateKey]
] = {
    Algorithm.ML_KEM_768: mlkem.MLKEM768PrivateKey,
    Algorithm.ML_KEM_1024: mlkem.MLKEM1024PrivateKey,
}

PROVIDER = LibcryptoProvider()


@pytest.fixture(autouse=True)
def _openssl(request: pytest.FixtureRequest) -> None:
    """Skip what needs the library where there is none that will do."""
    if request.cls is not TestAbsence:
        require_service("The system's OpenSSL 3.5", PROVIDER.algorithms())


@cache
def material(algorithm: Algorithm) -> bytes:
    """Return one key of an algorithm, made once per run."""
    return PROVIDER.generate(algorithm, SystemEntropy())


@cache
def signing(algorithm: Algorithm) -> LibcryptoSignaturePrivateHandle:
    """Return a handle of `material`."""
    handle = PROVIDER.load(algorithm, material(algorithm))
    assert isinstance(handle, LibcryptoSignaturePrivateHandle)
    return handle


@cache
def decapsulating(algorithm: Algorithm) -> KEMPrivateHandle:
    """Return a handle of `material`."""
    handle = PROVIDER.load(algorithm, material(algorithm))
    assert isinstance(handle, KEMPrivateHandle)
    return handle


def seed_of(algorithm: Algorithm) -> bytes:
    """Return the seed in `material` of ML-KEM and ML-DSA."""
    return read_private_form(algorithm, material(algorithm)).seed


def raw_public(algorithm: Algorithm) -> bytes:
    """Return the raw public half of `material`."""
    handle = PROVIDER.load(algorithm, material(algorithm))
    return read_public_key_info(algorithm, handle.public_der())


def flipped(data: bytes, position: int = 0) -> bytes:
    """Return the bytes with one bit changed."""
    changed = bytearray(data)
    changed[position] ^= 1
    return bytes(changed)


def mu_of(public: bytes, message: bytes, context: bytes = b"") -> bytes:
    """Return mu (FIPS 204, algorithm 7, line 6, and algorithm 2, line 10)."""
    tr = hashlib.shake_256(public).digest(64)
    framed = bytes([0, len(context)]) + context + message
    return hashlib.shake_256(tr + framed).digest(MU_BYTES)


class TestAbsence:
    @pytest.mark.parametrize("path", ["/nowhere/libcrypto.so.3", "libc.so.6"])
    def test_nothing_is_served(self, path: str) -> None:
        """
        Where the library is missing, or is another, nothing is served or raised.
        """
        provider = LibcryptoProvider(path)

        assert frozenset() == provider.algorithms()
        assert "" == provider.version

    def test_no_library(self, tmp_path: Path) -> None:
        """
        A file that is no library serves nothing.
        """
        path = tmp_path / "libcrypto.so.3"
        path.write_text("not a library")

        assert frozenset() == LibcryptoProvider(str(path)).algorithms()

    def test_older(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        A library older than what is asked for serves nothing.
        """
        monkeypatch.setattr(library, "MINIMUM_VERSION", 0x7000_0000)

        provider = LibcryptoProvider()

        assert frozenset() == provider.algorithms()
        assert "" == provider.version

    @pytest.mark.parametrize("algorithm", [*QUICK, Algorithm.AES_256_GCM])
    def test_use_is_refused(self, algorithm: Algorithm) -> None:
        """
        Whoever asks all the same learns that the algorithm isn't available.
        """
        provider = LibcryptoProvider("/nowhere/libcrypto.so.3")

        with pytest.raises(AlgorithmUnavailableError, match=algorithm.value):
            provider.generate(algorithm, SystemEntropy())
        with pytest.raises(AlgorithmUnavailableError, match=algorithm.value):
            provider.load(algorithm, b"")
        with pytest.raises(AlgorithmUnavailableError, match=algorithm.value):
            provider.load_foreign(algorithm, b"")
        with pytest.raises(AlgorithmUnavailableError, match=algorithm.value):
            provider.load_public(algorithm, b"")

    def test_a_build_without_the_algorithms(self, tmp_path: Path) -> None:
        """
        A configuration that takes the algorithms away is obeyed, not an error.
        """
        configuration = tmp_path / "openssl.cnf"
        configuration.write_text(
            "openssl_conf = all\n[all]\nproviders = some\n"
            "[some]\nnull = on\n[on]\nactivate = 1\n"
        )

        answer = subprocess.run(
            (
                *(sys.executable, "-c"),
                "from hsm_core._internal.crypto.libcrypto import LibcryptoProvider\n"
                "print(len(LibcryptoProvider().algorithms()))",
            ),
            env={**os.environ, "OPENSSL_CONF": str(configuration)},
            capture_output=True,
            check=True,
            timeout=60,
        )

        assert (b"0\n", b"") == (answer.stdout, answer.stderr)


class TestLibrary:
    def test_name_and_version(self) -> None:
        """
        The provider tells its name and the library's version.
        """
        assert "libcrypto" == PROVIDER.name
        assert re.fullmatch(r"OpenSSL [34]\.\d+\.\d+\S*", PROVIDER.version)

    def test_algorithms(self) -> None:
        """
        It serves ML-KEM, ML-DSA and SLH-DSA, every set of them, and nothing else.
        """
        assert {*ML_KEM, *ML_DSA, *SLH_DSA} == PROVIDER.algorithms()

    def test_other_algorithms_are_refused(self) -> None:
        """
        An algorithm that it does not serve is a clear error.
        """
        with pytest.raises(AlgorithmUnavailableError, match="RSA-2048"):
            PROVIDER.load(Algorithm.RSA_2048, b"")

    def test_opened_and_probed_once(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        The library is opened when first asked for, and each algorithm probed once.
        """
        opened: list[Ledger] = []
        real = ctypes.CDLL

        def record(path: str) -> Ledger:
            opened.append(Ledger(real(path)))
            return opened[-1]

        monkeypatch.setattr(ctypes, "CDLL", record)

        provider = LibcryptoProvider()

        assert [] == opened
        for _ in range(3):
            assert 18 == len(provider.algorithms())
            assert provider.version
        (ledger,) = opened
        assert 18 == ledger.called.count("EVP_PKEY_CTX_new_from_name")
        assert 3 == ledger.called.count("EVP_KEM_fetch")
        assert 15 == ledger.called.count("EVP_SIGNATURE_fetch")
        assert [] == ledger.held

    @pytest.mark.parametrize(
        ("call", "served"),
        [
            ("EVP_PKEY_CTX_new_from_name", []),
            ("EVP_KEM_fetch", [*ML_DSA, *SLH_DSA]),
            ("EVP_SIGNATURE_fetch", ML_KEM),
        ],
    )
    def test_half_there(
        self, monkeypatch: pytest.MonkeyPatch, call: str, served: list[Algorithm]
    ) -> None:
        """
        What a build has keys of, but can't use them, is not served.
        """
        found = find_libcrypto()
        assert found is not None
        ledger = Ledger(found.functions)
        ledger.failing = {call}
        monkeypatch.setattr(ctypes, "CDLL", lambda path: ledger)

        assert set(served) == LibcryptoProvider().algorithms()

    def test_unknown_names(self) -> None:
        """
        To ask for what isn't there leaves no error behind.
        """
        found = find_libcrypto()
        assert found is not None

        for probe in (found.has_key, found.has_kem, found.has_signature):
            assert not probe("ML-KEM-2048")
            assert 0 == found.functions.ERR_peek_last_error()

    def test_no_program_is_started(self) -> None:
        """
        Finding the library starts no compiler and no other program.
        """
        script = """
import os, sys
started = []
def watch(event, arguments):
    if event in {"subprocess.Popen", "os.fork", "os.posix_spawn", "os.system"}:
        started.append(event)
sys.addaudithook(watch)
from hsm_core._internal.crypto.libcrypto import LibcryptoProvider
print(len(LibcryptoProvider().algorithms()), started)
"""
        answer = subprocess.run(
            (sys.executable, "-c", script), capture_output=True, check=True, timeout=60
        )

        assert b"18 []\n" == answer.stdout

    def test_importing_primitives_opens_nothing(self) -> None:
        """
        To import the functions for users does not open the library.
        """
        script = """
import ctypes
def refuse(*arguments, **options):
    raise AssertionError("a library was opened")
ctypes.CDLL = refuse
import hsm_core.primitives
from hsm_core._internal.crypto.libcrypto import LibcryptoProvider
LibcryptoProvider()
"""
        subprocess.run((sys.executable, "-c", script), check=True, timeout=60)


class TestSigning:
    @pytest.mark.parametrize("algorithm", [*ML_DSA, *SLH_DSA])
    def test_round_trip(self, algorithm: Algorithm) -> None:
        """
        A signature under a context verifies by the public key, and no change of it.
        """
        handle = PROVIDER.load(algorithm, material(algorithm))
        public = PROVIDER.load_public(algorithm, handle.public_der())
        parameters = signature_parameters(algorithm, context=b"context")

        signature = handle.sign(MESSAGE, parameters)

        assert spec(algorithm).signature_bytes == len(signature)
        public.verify(MESSAGE, signature, parameters)
        for data, candidate, chosen in (
            (MESSAGE + b"!", signature, parameters),
            (b"", signature, parameters),
            (MESSAGE, flipped(signature), parameters),
            (MESSAGE, flipped(signature, -1), parameters),
            (MESSAGE, bytes(len(signature)), parameters),
            (MESSAGE, signature, signature_parameters(algorithm)),
            (MESSAGE, signature, signature_parameters(algorithm, context=b"other")),
        ):
            with pytest.raises(SignatureMismatchError):
                public.verify(data, candidate, chosen)

    @pytest.mark.parametrize("algorithm", QUICK_SIGNING)
    def test_wrong_lengths(self, algorithm: Algorithm) -> None:
        """
        A signature that is shorter or longer is a mismatch like any other.
        """
        handle = signing(algorithm)
        parameters = signature_parameters(algorithm)
        signature = handle.sign(MESSAGE, parameters)

        for candidate in (b"", b"\0", signature[:-1], signature + b"\0", signature * 2):
            with pytest.raises(SignatureMismatchError):
                handle.verify(MESSAGE, candidate, parameters)

    @pytest.mark.parametrize("algorithm", QUICK_SIGNING)
    @pytest.mark.parametrize("size", [0, 1, 255])
    def test_contexts(self, algorithm: Algorithm, size: int) -> None:
        """
        Contexts of up to 255 bytes are taken, zeros and all.
        """
        parameters = signature_parameters(algorithm, context=bytes(size))
        signature = signing(algorithm).sign(MESSAGE, parameters)

        signing(algorithm).verify(MESSAGE, signature, parameters)
        longer = signature_parameters(algorithm, context=bytes((size + 1) % 256))
        with pytest.raises(SignatureMismatchError):
            signing(algorithm).verify(MESSAGE, signature, longer)

    @pytest.mark.parametrize("algorithm", QUICK_SIGNING)
    def test_context_too_long(self, algorithm: Algorithm) -> None:
        """
        A context of 256 bytes is refused before the library sees it.
        """
        good = signature_parameters(algorithm)
        long = type(good)(
            scheme=good.scheme, hash=good.hash, mgf_hash=good.hash, context=bytes(256)
        )

        with pytest.raises(InputSizeError, match="context must be between 0 and 255"):
            signing(algorithm).sign(MESSAGE, long)
        with pytest.raises(InputSizeError, match="context must be between 0 and 255"):
            signing(algorithm).verify(MESSAGE, b"", long)

    @pytest.mark.parametrize("algorithm", QUICK_SIGNING)
    def test_hedged(self, algorithm: Algorithm) -> None:
        """
        Two signatures of one message differ; the deterministic variant's don't.
        """
        parameters = signature_parameters(algorithm)
        handle = signing(algorithm)

        hedged = {handle.sign(MESSAGE, parameters) for _ in range(3)}
        fixed = {sign_deterministic(handle, MESSAGE, parameters) for _ in range(3)}

        assert (3, 1) == (len(hedged), len(fixed))
        handle.verify(MESSAGE, fixed.pop(), parameters)

    @pytest.mark.parametrize("algorithm", ML_DSA)
    @pytest.mark.parametrize("context", [b"", bytes(range(255))])
    def test_mu(self, algorithm: Algorithm, context: bytes) -> None:
        """
        Signing mu is signing the message under the context that mu was made with.
        """
        whole = signature_parameters(algorithm, context=context)
        by_mu = signature_parameters(algorithm, external_mu=True)
        mu = mu_of(raw_public(algorithm), MESSAGE, context)
        handle = signing(algorithm)

        handle.verify(MESSAGE, handle.sign(mu, by_mu), whole)
        handle.verify(mu, handle.sign(MESSAGE, whole), by_mu)
        with pytest.raises(SignatureMismatchError):
            handle.verify(flipped(mu), handle.sign(mu, by_mu), by_mu)
        with pytest.raises(SignatureMismatchError):
            handle.verify(mu, handle.sign(mu, by_mu), signature_parameters(algorithm))

    @pytest.mark.parametrize("algorithm", ML_DSA)
    @pytest.mark.parametrize("size", [0, 32, 63, 65])
    def test_mu_of_another_length(self, algorithm: Algorithm, size: int) -> None:
        """
        A mu that is not 64 bytes long is refused, to sign and to verify.
        """
        by_mu = signature_parameters(algorithm, external_mu=True)

        with pytest.raises(InputSizeError, match="mu must be 64 bytes"):
            signing(algorithm).sign(bytes(size), by_mu)
        with pytest.raises(InputSizeError, match="mu must be 64 bytes"):
            signing(algorithm).verify(bytes(size), b"", by_mu)

    def test_no_kem(self) -> None:
        """
        A signing key encapsulates nothing.
        """
        with pytest.raises(UnsupportedOperationError, match="can't encapsulate"):
            signing(Algorithm.ML_DSA_65).encapsulate()

    @pytest.mark.parametrize("algorithm", QUICK_SIGNING)
    def test_public_half_signs_nothing(self, algorithm: Algorithm) -> None:
        """
        A public key refuses to sign.
        """
        public = PROVIDER.load_public(algorithm, signing(algorithm).public_der())

        with pytest.raises(UnsupportedOperationError, match="can't sign"):
            public.sign(MESSAGE, signature_parameters(algorithm))

    @settings(max_examples=30, deadline=None)
    @given(st.sampled_from(ML_DSA), st.binary(max_size=9000), st.binary(max_size=255))
    def test_any_message(
        self, algorithm: Algorithm, message: bytes, context: bytes
    ) -> None:
        """
        Any message under any context verifies, and under no other of either.
        """
        parameters = signature_parameters(algorithm, context=context)
        signature = signing(algorithm).sign(message, parameters)

        signing(algorithm).verify(message, signature, parameters)
        with pytest.raises(SignatureMismatchError):
            signing(algorithm).verify(message + b"\0", signature, parameters)


class TestEncapsulation:
    @pytest.mark.parametrize("algorithm", ML_KEM)
    def test_round_trip(self, algorithm: Algorithm) -> None:
        """
        The secret that comes out is the one that went in, and fresh each time.
        """
        handle = decapsulating(algorithm)
        public = PROVIDER.load_public(algorithm, handle.public_der())
        made = [*(public.encapsulate() for _ in range(3)), handle.encapsulate()]

        for secret, ciphertext in made:
            assert (32, spec(algorithm).ciphertext_bytes) == (
                len(secret),
                len(ciphertext),
            )
            assert secret == handle.decapsulate(ciphertext)
        assert 4 == len({secret for secret, _ in made})

    @pytest.mark.parametrize("algorithm", ML_KEM)
    def test_implicit_rejection(self, algorithm: Algorithm) -> None:
        """
        A changed encapsulation gives J(z ‖ c), not an error (FIPS 203, algorithm 18).
        """
        handle = decapsulating(algorithm)
        secret, ciphertext = handle.encapsulate()

        for changed in (
            flipped(ciphertext),
            flipped(ciphertext, -1),
            bytes(len(ciphertext)),
        ):
            z = seed_of(algorithm)[32:]

            rejected = handle.decapsulate(changed)

            assert hashlib.shake_256(z + changed).digest(32) == rejected != secret

    @pytest.mark.parametrize("algorithm", ML_KEM)
    def test_ciphertext_of_another_length(self, algorithm: Algorithm) -> None:
        """
        An encapsulation of another length is refused by name and limit (FIPS 203, 7.3).
        """
        handle = decapsulating(algorithm)
        _, ciphertext = handle.encapsulate()
        size = len(ciphertext)

        for wrong in (b"", ciphertext[:-1], ciphertext + b"\0", bytes(1)):
            with pytest.raises(InputSizeError) as caught:
                handle.decapsulate(wrong)
            facts = {"field": "ciphertext", "minimum": size, "maximum": size}
            assert facts.items() <= caught.value.facts.items()

    @pytest.mark.parametrize("algorithm", ML_KEM)
    def test_coefficient_out_of_range(self, algorithm: Algorithm) -> None:
        """
        An encapsulation key with a coefficient of 3329 is refused (FIPS 203, 7.2).
        """
        raw = raw_public(algorithm)
        # The last coefficient's twelve bits, before the 32 bytes of rho.
        at = len(raw) - 34

        def with_last(coefficient: int) -> bytes:
            low = raw[at] & 0x0F | (coefficient & 0x0F) << 4
            return raw[:at] + bytes([low, coefficient >> 4]) + raw[at + 2 :]

        reduced = subject_public_key_info(algorithm, with_last(3328))
        assert reduced == PROVIDER.load_public(algorithm, reduced).public_der()
        for coefficient in (3329, 4095):
            der = subject_public_key_info(algorithm, with_last(coefficient))
            with pytest.raises(InvalidInputError, match="not a valid public key"):
                PROVIDER.load_public(algorithm, der)

    @pytest.mark.parametrize("algorithm", ML_KEM)
    def test_chosen_message(self, algorithm: Algorithm) -> None:
        """
        From a given m always the same follows; an m of another length is refused.
        """
        handle = decapsulating(algorithm)

        first, second = (encapsulate_from(handle, bytes(32)) for _ in range(2))

        assert first == second
        assert first[0] == handle.decapsulate(first[1])
        for wrong in (b"", bytes(31), bytes(33)):
            with pytest.raises(ValueError, match="Expected 32 bytes"):
                encapsulate_from(handle, wrong)

    def test_public_half_decapsulates_nothing(self) -> None:
        """
        A public key refuses to decapsulate, and a KEM key to sign.
        """
        algorithm = Algorithm.ML_KEM_512
        handle = decapsulating(algorithm)
        public = PROVIDER.load_public(algorithm, handle.public_der())
        parameters = signature_parameters(Algorithm.ML_DSA_65)

        assert isinstance(public, KEMPublicHandle)
        with pytest.raises(UnsupportedOperationError, match="can't decapsulate"):
            public.decapsulate(bytes(768))
        with pytest.raises(UnsupportedOperationError, match="can't sign"):
            handle.sign(MESSAGE, parameters)


class ScriptedEntropy:
    """Entropy of known bytes, which remembers what was asked for."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def random_bytes(self, length: int, /) -> bytes:
        """Return counting bytes."""
        self.asked.append(length)
        return bytes(i % 256 for i in range(length))


class FailingEntropy:
    """Entropy whose health test has failed."""

    def random_bytes(self, length: int, /) -> bytes:
        """Give nothing."""
        raise EntropyUnavailableError


class TestMaterial:
    @pytest.mark.parametrize("algorithm", QUICK)
    def test_seed_is_from_entropy(self, algorithm: Algorithm) -> None:
        """
        A key follows from what the entropy gave, all of it and nothing else.
        """
        entropy = ScriptedEntropy()

        first = PROVIDER.generate(algorithm, entropy)
        second = PROVIDER.generate(algorithm, entropy)

        assert first == second
        assert [seed_bytes(algorithm)] * 2 == entropy.asked
        octets = read_private_key_info(algorithm, first)
        assert ScriptedEntropy().random_bytes(seed_bytes(algorithm)) in octets

    def test_entropy_fails(self) -> None:
        """
        No key is made when the entropy is not healthy.
        """
        with pytest.raises(EntropyUnavailableError):
            PROVIDER.generate(Algorithm.ML_KEM_512, FailingEntropy())

    @pytest.mark.parametrize("algorithm", QUICK)
    def test_seed_of_another_length(self, algorithm: Algorithm) -> None:
        """
        A seed of another length, none above all, never becomes a key.
        """
        size = seed_bytes(algorithm)
        for wrong in (b"", bytes(1), bytes(size - 1), bytes(size + 1)):
            with pytest.raises(ValueError, match=f"Expected {size} bytes"):
                PROVIDER.material_from_seed(algorithm, wrong)

    @pytest.mark.parametrize("algorithm", QUICK)
    def test_material_of_another_length(self, algorithm: Algorithm) -> None:
        """
        Material whose key is shorter, longer or empty is refused, trusted or not.
        """
        size = spec(algorithm).private_bytes
        build = private_key_info if algorithm in SLH_DSA else seed_key_info
        for wrong in (b"", bytes(1), bytes(size - 1), bytes(size + 1)):
            for load in (PROVIDER.load, PROVIDER.load_foreign):
                with pytest.raises(InvalidInputError) as caught:
                    load(algorithm, build(algorithm, wrong))
                assert "material" == caught.value.facts["field"]

    @pytest.mark.parametrize("algorithm", QUICK)
    def test_public_key_of_another_length(self, algorithm: Algorithm) -> None:
        """
        A public key that is shorter, longer or empty is refused.
        """
        raw = raw_public(algorithm)
        for wrong in (b"", raw[:-1], raw + b"\0"):
            with pytest.raises(InvalidInputError, match="public_key"):
                PROVIDER.load_public(
                    algorithm, subject_public_key_info(algorithm, wrong)
                )

    @pytest.mark.parametrize("algorithm", QUICK)
    def test_another_set(self, algorithm: Algorithm) -> None:
        """
        A key of one set is not loaded as one of another.
        """
        public = PROVIDER.load(algorithm, material(algorithm)).public_der()
        for other in set(QUICK) - {algorithm}:
            with pytest.raises(InvalidInputError):
                PROVIDER.load(other, material(algorithm))
            with pytest.raises(InvalidInputError):
                PROVIDER.load_public(other, public)

    @pytest.mark.parametrize("algorithm", [*ML_KEM, *ML_DSA])
    def test_seed_with_its_expanded_key(self, algorithm: Algorithm) -> None:
        """
        PKCS#8 of seed and expanded key is the same key; a changed half is refused.
        """
        seed = seed_of(algorithm)
        expanded = expanded_of(algorithm, seed)
        own = PROVIDER.load(algorithm, material(algorithm)).public_der()

        both = PROVIDER.load_foreign(algorithm, both_form(algorithm, seed, expanded))

        assert own == both.public_der()
        bare = PROVIDER.load_foreign(algorithm, material(algorithm))
        assert own == bare.public_der()
        with pytest.raises(InvalidInputError, match="holds more than the seed"):
            PROVIDER.load(algorithm, both_form(algorithm, seed, expanded))
        for wrong in (
            both_form(algorithm, flipped(seed), expanded),
            both_form(algorithm, seed, flipped(expanded)),
            both_form(algorithm, seed, flipped(expanded, -1)),
            both_form(algorithm, seed, flipped(expanded, 200)),
            both_form(algorithm, seed, bytes(len(expanded))),
        ):
            with pytest.raises(InvalidInputError, match="does not match its seed"):
                PROVIDER.load_foreign(algorithm, wrong)

    @pytest.mark.parametrize("algorithm", [*ML_KEM, *ML_DSA])
    def test_expanded_alone(self, algorithm: Algorithm) -> None:
        """
        PKCS#8 of the expanded key alone is refused, with the reason.
        """
        expanded = expanded_of(algorithm, seed_of(algorithm))
        octets = b"\x04\x82" + len(expanded).to_bytes(2, "big") + expanded

        with pytest.raises(
            InvalidInputError, match="the expanded key without its seed"
        ):
            PROVIDER.load_foreign(algorithm, private_key_info(algorithm, octets))

    @pytest.mark.parametrize(
        "algorithm", [Algorithm.SLH_DSA_SHA2_128F, Algorithm.SLH_DSA_SHAKE_256F]
    )
    def test_root_of_a_foreign_key(self, algorithm: Algorithm) -> None:
        """
        An SLH-DSA key from elsewhere has the root that its seeds give, or is refused.
        """
        octets = read_private_key_info(algorithm, material(algorithm))
        n = len(octets) // 4

        PROVIDER.load_foreign(algorithm, material(algorithm))
        for position in (0, 2 * n, 3 * n, -1):
            changed = private_key_info(algorithm, flipped(octets, position))
            with pytest.raises(InvalidInputError, match="does not match its seeds"):
                PROVIDER.load_foreign(algorithm, changed)

    @pytest.mark.parametrize("algorithm", QUICK)
    def test_repr_shows_no_key(self, algorithm: Algorithm) -> None:
        """
        What a handle prints is its class and algorithm.
        """
        handle = PROVIDER.load(algorithm, material(algorithm))

        assert f"<{type(handle).__name__} {algorithm}>" == repr(handle)


def expanded_of(algorithm: Algorithm, seed: bytes) -> bytes:
    """Return the expanded private key, as FIPS 203 and 204 encode it."""
    functions = find_libcrypto()
    assert functions is not None
    size = {
        Algorithm.ML_KEM_512: 1632,
        Algorithm.ML_KEM_768: 2400,
        Algorithm.ML_KEM_1024: 3168,
        Algorithm.ML_DSA_44: 2560,
        Algorithm.ML_DSA_65: 4032,
        Algorithm.ML_DSA_87: 4896,
    }[algorithm]
    return key_from_seed(functions, algorithm, seed).private_bytes(size)


def both_form(algorithm: Algorithm, seed: bytes, expanded: bytes) -> bytes:
    """Return PKCS#8 with seed and expanded key (RFC 9881 and 9935, section 6)."""
    parts = (
        bytes([0x04, len(seed)])
        + seed
        + b"\x04\x82"
        + len(expanded).to_bytes(2, "big")
        + expanded
    )
    return private_key_info(
        algorithm, b"\x30\x82" + len(parts).to_bytes(2, "big") + parts
    )


class TestCryptography:
    """The OpenSSL inside cryptography is another library in the same process."""

    @pytest.mark.parametrize("algorithm", PYCA_SIGNING)
    @pytest.mark.parametrize("context", [b"", bytes(range(255))])
    def test_signatures(self, algorithm: Algorithm, context: bytes) -> None:
        """
        From one seed both have one public key, and verify each other's signatures.
        """
        theirs = PYCA_SIGNING[algorithm].from_seed_bytes(seed_of(algorithm))
        ours = signing(algorithm)
        parameters = signature_parameters(algorithm, context=context)
        by_mu = signature_parameters(algorithm, external_mu=True)
        mu = mu_of(raw_public(algorithm), MESSAGE, context)

        assert raw_public(algorithm) == theirs.public_key().public_bytes_raw()
        ours.verify(MESSAGE, theirs.sign(MESSAGE, context), parameters)
        ours.verify(mu, theirs.sign_mu(mu), by_mu)
        theirs.public_key().verify(ours.sign(MESSAGE, parameters), MESSAGE, context)
        theirs.public_key().verify_mu(ours.sign(mu, by_mu), mu)
        with pytest.raises(InvalidSignature):
            theirs.public_key().verify(flipped(ours.sign(mu, by_mu)), MESSAGE, context)

    @pytest.mark.parametrize("algorithm", PYCA_KEM)
    def test_encapsulation(self, algorithm: Algorithm) -> None:
        """
        From one seed both have one public key, and decapsulate and reject alike.
        """
        theirs = PYCA_KEM[algorithm].from_seed_bytes(seed_of(algorithm))
        ours = decapsulating(algorithm)

        assert raw_public(algorithm) == theirs.public_key().public_bytes_raw()
        secret, ciphertext = ours.encapsulate()
        assert secret == theirs.decapsulate(ciphertext)
        secret, ciphertext = theirs.public_key().encapsulate()
        assert secret == ours.decapsulate(ciphertext)
        changed = flipped(ciphertext)
        assert theirs.decapsulate(changed) == ours.decapsulate(changed) != secret

    def test_pythons_own_modules(self) -> None:
        """
        A refusal leaves no error behind that Python's ssl would take for its own.
        """
        functions = find_libcrypto()
        assert functions is not None
        algorithm = Algorithm.ML_KEM_512
        bad = subject_public_key_info(algorithm, b"\xff" * 800)
        with pytest.raises(InvalidInputError):
            PROVIDER.load_public(algorithm, bad)
        assert 0 == functions.functions.ERR_peek_last_error()
        parameters = signature_parameters(Algorithm.ML_DSA_44)
        with pytest.raises(SignatureMismatchError):
            signing(Algorithm.ML_DSA_44).verify(MESSAGE, bytes(2420), parameters)

        assert 0 == functions.functions.ERR_peek_last_error()
        assert ssl.create_default_context().get_ciphers()
        digest = hashlib.sha256(MESSAGE).digest()
        assert digest == hashlib.new("sha256", MESSAGE).digest()
        assert 32 == len(hmac.digest(b"key", MESSAGE, "sha256"))


Action = Callable[[LibcryptoProvider], object]


def key_actions() -> dict[str, Action]:
    """Return uses of the provider, which together make every call that it makes."""
    kem, signs, slh = (
        Algorithm.ML_KEM_512,
        Algorithm.ML_DSA_44,
        Algorithm.SLH_DSA_SHA2_128F,
    )
    parameters = signature_parameters(signs, context=b"context")
    signature = signing(signs).sign(MESSAGE, parameters)
    _, ciphertext = decapsulating(kem).encapsulate()
    public = decapsulating(kem).public_der()
    return {
        "generate": lambda p: p.generate(slh, SystemEntropy()),
        "load": lambda p: p.load(slh, material(slh)),
        "load_public": lambda p: p.load_public(kem, public),
        "encapsulate": lambda p: p.load_public(kem, public).encapsulate(),
        "decapsulate": lambda p: p.load(kem, material(kem)).decapsulate(ciphertext),
        "sign": lambda p: p.load(signs, material(signs)).sign(MESSAGE, parameters),
        "verify": lambda p: p.load(signs, material(signs)).verify(
            MESSAGE, signature, parameters
        ),
    }


CALLS = [
    "EVP_PKEY_CTX_new_from_name",
    "EVP_PKEY_CTX_new_from_pkey",
    "EVP_PKEY_CTX_set_params",
    "EVP_PKEY_decapsulate",
    "EVP_PKEY_decapsulate_init",
    "EVP_PKEY_encapsulate",
    "EVP_PKEY_encapsulate_init",
    "EVP_PKEY_generate",
    "EVP_PKEY_get_raw_private_key",
    "EVP_PKEY_get_raw_public_key",
    "EVP_PKEY_keygen_init",
    "EVP_PKEY_new_raw_private_key_ex",
    "EVP_PKEY_new_raw_public_key_ex",
    "EVP_PKEY_sign",
    "EVP_PKEY_sign_message_init",
    "EVP_PKEY_verify",
    "EVP_PKEY_verify_message_init",
]


class TestOwnership:
    @pytest.fixture
    def ledger(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ledger]:
        """Give the ledger of the library that the next provider opens."""
        found = find_libcrypto()
        assert found is not None
        made = Ledger(found.functions)
        monkeypatch.setattr(ctypes, "CDLL", lambda path: made)
        yield made
        made.failing.clear()

    def test_nothing_is_kept(self, ledger: Ledger) -> None:
        """
        After any use, what was made in the library has been freed, and once only.
        """
        provider = LibcryptoProvider()
        called: set[str] = set()
        provider.algorithms()
        for name, action in key_actions().items():
            ledger.called.clear()

            action(provider)

            gc.collect()
            assert [] == ledger.held, name
            called.update(ledger.called)
        assert set(CALLS) <= called

    @pytest.mark.parametrize("call", CALLS)
    def test_failing_calls(self, ledger: Ledger, call: str) -> None:
        """
        Whichever call fails, an error comes out, and all is freed all the same.
        """
        provider = LibcryptoProvider()
        actions = key_actions()
        provider.algorithms()
        failed = 0
        for name, action in actions.items():
            ledger.called.clear()
            ledger.failing = {call}
            try:
                action(provider)
            except (LibcryptoError, HSMError):
                failed += 1
            else:
                assert call not in ledger.called, name

            gc.collect()
            assert [] == ledger.held, name
        assert failed

    def test_a_call_that_fails_is_no_answer(self, ledger: Ledger) -> None:
        """
        A library that can't start to verify has not judged the signature.
        """
        provider = LibcryptoProvider()
        actions = key_actions()
        provider.algorithms()

        ledger.failing = {"EVP_PKEY_verify_message_init"}
        with pytest.raises(LibcryptoError, match="EVP_PKEY_verify_message_init failed"):
            actions["verify"](provider)
        ledger.failing = {"EVP_PKEY_verify"}
        with pytest.raises(SignatureMismatchError):
            actions["verify"](provider)

    def test_memory_does_not_grow(self) -> None:
        """
        Thousands of uses, good and refused, need no more memory than hundreds.
        """
        statm = Path("/proc/self/statm")
        require_service("Linux's /proc", statm.exists())
        kem, signs = Algorithm.ML_KEM_512, Algorithm.ML_DSA_44
        bad = subject_public_key_info(kem, b"\xff" * 800)
        parameters = signature_parameters(signs, context=b"context")
        signature = bytes(2420)

        def use(times: int) -> None:
            for _ in range(times):
                secret, ciphertext = PROVIDER.load(kem, material(kem)).encapsulate()
                assert secret == decapsulating(kem).decapsulate(ciphertext)
                with pytest.raises(InvalidInputError):
                    PROVIDER.load_public(kem, bad)
                with pytest.raises(SignatureMismatchError):
                    PROVIDER.load(signs, material(signs)).verify(
                        MESSAGE, signature, parameters
                    )

        def pages() -> int:
            gc.collect()
            return int(statm.read_text().split()[1])

        use(500)
        before = pages()
        use(3000)
        grown = (pages() - before) * os.sysconf("SC_PAGE_SIZE")

        # One of the contexts or keys of each round, kept, would be 2 MB and more.
        assert grown < 1_000_000


class TestBuffer:
    def test_overwritten(self) -> None:
        """
        A secret answer is overwritten once it was taken, or was not.
        """
        functions = find_libcrypto()
        assert functions is not None

        with Buffer(functions, 8) as buffer:
            ctypes.memmove(buffer.memory, b"a secret", 8)
            taken = buffer.taken()

        assert (b"a secret", bytes(8)) == (taken, buffer.memory.raw)

    def test_short_answer(self) -> None:
        """
        An answer shorter than it must be is never taken.
        """
        functions = find_libcrypto()
        assert functions is not None

        with Buffer(functions, 8) as buffer:
            buffer.size.value = 7
            with pytest.raises(LibcryptoError, match="Expected 8 bytes, got 7"):
                buffer.taken()


@pytest.mark.parametrize("make", [key_from_seed, key_from_private, key_from_public])
def test_lengths_before_the_library(
    make: Callable[[Libcrypto, Algorithm, bytes], object],
) -> None:
    """
    No key is asked of the library by bytes that are not as long as they must be.
    """
    functions = find_libcrypto()
    assert functions is not None
    for algorithm in QUICK:
        for size in (0, 1, 5000):
            with pytest.raises(ValueError, match=r"Expected \d+ bytes"):
                make(functions, algorithm, bytes(size))


class TestThreads:
    def test_one_handle(self) -> None:
        """
        Many threads use one handle at once, each with an answer of its own.
        """
        kem, signs = Algorithm.ML_KEM_512, Algorithm.ML_DSA_44
        private, signer = decapsulating(kem), signing(signs)
        parameters = [
            signature_parameters(signs, context=bytes([number])) for number in range(8)
        ]

        def work(number: int) -> int:
            message, mine = bytes([number]) * 100, parameters[number % 8]
            other = parameters[(number + 1) % 8]
            for _ in range(20):
                secret, ciphertext = private.encapsulate()
                assert secret == private.decapsulate(ciphertext)
                signature = signer.sign(message, mine)
                signer.verify(message, signature, mine)
                with pytest.raises(SignatureMismatchError):
                    signer.verify(message, signature, other)
            return number

        with ThreadPoolExecutor(8) as pool:
            assert [*range(16)] == [*pool.map(work, range(16))]

    def test_first_use_by_many(self) -> None:
        """
        A provider that many threads ask first at the same time serves all of them.
        """
        provider = LibcryptoProvider()

        def work(number: int) -> bytes:
            seed = bytes([number % 2]) * 64
            made = provider.material_from_seed(Algorithm.ML_KEM_512, seed)
            return provider.load(Algorithm.ML_KEM_512, made).public_der()

        with ThreadPoolExecutor(8) as pool:
            assert 2 == len({*pool.map(work, range(32))})

    def test_slow_work_stalls_nobody(self) -> None:
        """
        While one thread signs slowly, another goes on: the interpreter is not held.
        """
        slow = signing(Algorithm.SLH_DSA_SHA2_128S)
        parameters = signature_parameters(Algorithm.SLH_DSA_SHA2_128S)
        quick = decapsulating(Algorithm.ML_KEM_512)
        done = 0

        with ThreadPoolExecutor(1) as pool:
            signature = pool.submit(slow.sign, MESSAGE, parameters)
            while not signature.done():
                quick.encapsulate()
                done += 1

        # Were it held, there would be one before the signature is begun, and one after.
        assert done > 20
