# SPDX-License-Identifier: MIT
"""The provider over a real liboqs, wherever one is installed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from hsm_core._internal.crypto.der import (
    read_private_key_info,
    seed_key_info,
    subject_public_key_info,
)
from hsm_core._internal.crypto.libcrypto import LibcryptoProvider
from hsm_core._internal.crypto.parameters import signature_parameters
from hsm_core._internal.crypto.pyca import PycaCryptoProvider
from hsm_core._internal.crypto.selftest import known_answer_test
from hsm_core._internal.lib.entropy import SystemEntropy
from hsm_core._providers.oqs.library import (
    Absent,
    OqsLibrary,
    mechanism_name,
    open_library,
)
from hsm_core._providers.oqs.provider import OqsProvider
from hsm_core._providers.pqcrypto.provider import PqcryptoProvider
from hsm_core.algorithms import ALGORITHMS, Algorithm, Family, spec
from hsm_core.errors import InputSizeError, InvalidInputError, SignatureMismatchError
from hsm_core.protocols import CryptoProvider

ENTROPY = SystemEntropy()
OTHERS: tuple[CryptoProvider, ...] = (
    PycaCryptoProvider(),
    LibcryptoProvider(),
    PqcryptoProvider(),
)
KEMS = [r.algorithm for r in ALGORITHMS.values() if r.family is Family.ML_KEM]
FAST = [
    row.algorithm
    for row in ALGORITHMS.values()
    if row.family is Family.ML_DSA
    or (row.family is Family.SLH_DSA and row.algorithm.value.endswith("f"))
]
CONTEXT = bytes(range(255))


@pytest.fixture(scope="module")
def library() -> OqsLibrary:
    """Give the library, or skip: no package brings it, so no run can require it."""
    found = open_library()
    if isinstance(found, Absent):
        pytest.skip(found.reason)
    return found


@pytest.fixture
def provider(library: OqsLibrary) -> OqsProvider:
    """Give the provider over the library."""
    return OqsProvider(lambda: library)


@pytest.fixture
def kems(provider: OqsProvider) -> list[Algorithm]:
    """Give the KEMs of the build."""
    return [algorithm for algorithm in KEMS if algorithm in provider.algorithms()]


@pytest.fixture
def signers(provider: OqsProvider) -> list[Algorithm]:
    """Give the quick signatures of the build."""
    return [algorithm for algorithm in FAST if algorithm in provider.algorithms()]


def others(algorithm: Algorithm) -> Iterator[CryptoProvider]:
    """Give the providers of this machine that serve an algorithm and take its seeds."""
    for other in OTHERS:
        if algorithm in other.algorithms() and not (
            other.name == "pqcrypto" and algorithm is Algorithm.ML_KEM_512
        ):
            yield other


def test_output(library: OqsLibrary) -> None:
    """
    Opening the library and serving all it has writes nothing at all.
    """
    program = (
        "from hsm_core._providers.oqs.provider import OqsProvider; import sys;"
        "sys.exit(not OqsProvider().algorithms())"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, check=False
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_known_answers(
    provider: OqsProvider, kems: list[Algorithm], signers: list[Algorithm]
) -> None:
    """
    The self-test passes, which makes keys from seeds and takes both paths of KEMs.
    """
    for served in [*kems, *signers]:
        known_answer_test(served, provider)


def test_material_moves(
    provider: OqsProvider, kems: list[Algorithm], signers: list[Algorithm]
) -> None:
    """
    Material of each provider is the same key with every other.
    """
    for served in [*kems, *signers]:
        ours = provider.generate(served, ENTROPY)
        public_der = provider.load(served, ours).public_der()
        for other in others(served):
            theirs = other.generate(served, ENTROPY)

            assert other.load_foreign(served, ours).public_der() == public_der
            moved = provider.load_foreign(served, theirs)
            assert moved.public_der() == other.load(served, theirs).public_der()


class TestKEM:
    def test_others(self, provider: OqsProvider, kems: list[Algorithm]) -> None:
        """
        Secrets agree with those of other providers, rejected ones too.
        """
        for kem in kems:
            material = provider.generate(kem, ENTROPY)
            ours = provider.load(kem, material)
            for other in others(kem):
                theirs = other.load(kem, material)
                secret, ciphertext = ours.encapsulate()
                back, returned = theirs.encapsulate()
                changed = bytes([ciphertext[0] ^ 1]) + ciphertext[1:]

                assert theirs.decapsulate(ciphertext) == secret
                assert ours.decapsulate(returned) == back
                assert (
                    ours.decapsulate(changed) == theirs.decapsulate(changed) != secret
                )

    def test_padding(
        self, library: OqsLibrary, provider: OqsProvider, kems: list[Algorithm]
    ) -> None:
        """
        The binding pads a cut ciphertext in silence, and the provider refuses it.
        """
        for kem in kems:
            material = provider.generate(kem, ENTROPY)
            handle = provider.load(kem, material)
            _, ciphertext = handle.encapsulate()
            bare = library.binding.KeyEncapsulation(mechanism_name(kem))
            bare.generate_keypair_seed(bytes(64))
            accepted = bare.decap_secret(ciphertext[:-8])
            bare.free()

            assert len(accepted) == 32
            with pytest.raises(InputSizeError):
                handle.decapsulate(ciphertext[:-8])

    def test_unreduced(self, provider: OqsProvider, kems: list[Algorithm]) -> None:
        """
        A public key with a coefficient above the modulus is refused when it is loaded.
        """
        for kem in kems:
            raw = b"\xff" * spec(kem).public_bytes

            with pytest.raises(InvalidInputError, match="not a valid public key"):
                provider.load_public(kem, subject_public_key_info(kem, raw))

    def test_made_without_seed(self, provider: OqsProvider) -> None:
        """
        A key of ML-KEM-512 that pqcrypto made can be used, and is not imported.
        """
        maker, algorithm = PqcryptoProvider(), Algorithm.ML_KEM_512
        if algorithm not in maker.algorithms() & provider.algorithms():
            pytest.skip("One of the providers has no ML-KEM-512.")
        material = maker.generate(algorithm, ENTROPY)
        theirs, ours = (
            maker.load(algorithm, material),
            provider.load(algorithm, material),
        )
        secret, ciphertext = theirs.encapsulate()

        assert ours.public_der() == theirs.public_der()
        assert ours.decapsulate(ciphertext) == secret
        with pytest.raises(InvalidInputError, match="without the seed"):
            provider.load_foreign(algorithm, material)


class TestSignature:
    def test_others(self, provider: OqsProvider, signers: list[Algorithm]) -> None:
        """
        Signatures with the longest context verify with other providers, and back.
        """
        for signer in signers:
            material = provider.generate(signer, ENTROPY)
            ours = provider.load(signer, material)
            parameters = signature_parameters(signer, context=CONTEXT)
            plain = signature_parameters(signer)
            for other in others(signer):
                theirs = other.load(signer, material)
                signature = ours.sign(b"message", parameters)

                theirs.verify(b"message", signature, parameters)
                ours.verify(b"message", theirs.sign(b"message", parameters), parameters)
                ours.verify(b"", theirs.sign(b"", plain), plain)
                with pytest.raises(SignatureMismatchError):
                    ours.verify(b"message", signature, plain)

    def test_hedged(self, provider: OqsProvider, signers: list[Algorithm]) -> None:
        """
        Two signatures over the same message differ.
        """
        for signer in signers:
            handle = provider.load(signer, provider.generate(signer, ENTROPY))
            parameters = signature_parameters(signer)

            assert handle.sign(b"", parameters) != handle.sign(b"", parameters)

    def test_wrong(self, provider: OqsProvider, signers: list[Algorithm]) -> None:
        """
        A signature of another length, or with another bit, is a mismatch.
        """
        for signer in signers:
            handle = provider.load(signer, provider.generate(signer, ENTROPY))
            parameters = signature_parameters(signer)
            signature = handle.sign(b"message", parameters)
            altered = signature[:40] + bytes([signature[40] ^ 1]) + signature[41:]
            for wrong in (b"", signature[:-1], signature + b"\0", altered):
                with pytest.raises(SignatureMismatchError):
                    handle.verify(b"message", wrong, parameters)

    def test_long_context(
        self, provider: OqsProvider, signers: list[Algorithm]
    ) -> None:
        """
        A context of 256 bytes is refused.
        """
        for signer in signers:
            handle = provider.load(signer, provider.generate(signer, ENTROPY))
            parameters = replace(signature_parameters(signer), context=bytes(256))

            with pytest.raises(InputSizeError, match="context"):
                handle.sign(b"message", parameters)

    def test_mu(self, provider: OqsProvider, signers: list[Algorithm]) -> None:
        """
        A signature over mu is one over the message that mu was made of.
        """
        for signer in signers:
            if not spec(signer).takes_mu:
                continue
            pyca = PycaCryptoProvider()
            material = provider.generate(signer, ENTROPY)
            ours, theirs = provider.load(signer, material), pyca.load(signer, material)
            parameters = signature_parameters(signer, external_mu=True)

            theirs.verify(bytes(64), ours.sign(bytes(64), parameters), parameters)
            ours.verify(bytes(64), theirs.sign(bytes(64), parameters), parameters)


def test_many_threads(provider: OqsProvider) -> None:
    """
    Many threads that make keys from seeds, sign and encapsulate don't mix them up.
    """
    signer, kem, hashed = (
        Algorithm.ML_DSA_44,
        Algorithm.ML_KEM_768,
        Algorithm.SLH_DSA_SHA2_128F,
    )
    if not {signer, kem, hashed} <= provider.algorithms():
        pytest.skip("This build of liboqs lacks what is mixed.")
    handle = provider.load(kem, provider.generate(kem, ENTROPY))
    seeds = [bytes([number]) * 32 for number in range(32)]
    parameters = signature_parameters(signer)

    def work(seed: bytes) -> tuple[bytes, bytes, bytes]:
        made = read_private_key_info(hashed, provider.generate(hashed, ENTROPY))
        private = provider.load(signer, seed_key_info(signer, seed))
        signature = private.sign(seed, parameters)
        private.verify(seed, signature, parameters)
        secret, ciphertext = handle.encapsulate()
        assert handle.decapsulate(ciphertext) == secret
        return private.public_der(), secret, made

    alone = [work(seed)[0] for seed in seeds]
    with ThreadPoolExecutor(8) as threads:
        together = list(threads.map(work, seeds * 8))

    assert [public for public, _, _ in together] == alone * 8
    assert len({secret for _, secret, _ in together}) == len(together)
    assert len({made for _, _, made in together}) == len(together)
