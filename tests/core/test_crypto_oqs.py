# SPDX-License-Identifier: MIT
"""The provider over liboqs, against a binding that has the real one's faults."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from hsm_core._internal.crypto.der import (
    OCTET_STRING,
    SEQUENCE,
    element,
    private_key_info,
    read_private_form,
    read_private_key_info,
    seed_key_info,
    subject_public_key_info,
)
from hsm_core._internal.crypto.guard import Guard
from hsm_core._internal.crypto.parameters import signature_parameters
from hsm_core._internal.crypto.pyca import PycaCryptoProvider
from hsm_core._internal.lib.entropy import SystemEntropy
from hsm_core._providers.oqs.library import (
    Absent,
    Binding,
    Draws,
    OqsLibrary,
    mechanism_name,
)
from hsm_core._providers.oqs.provider import OqsProvider
from hsm_core.algorithms import ALGORITHMS, Algorithm, Family, spec
from hsm_core.errors import (
    AlgorithmUnavailableError,
    InputSizeError,
    InvalidInputError,
    SignatureMismatchError,
    UnavailableError,
)
from hsm_core.protocols import Entropy
from tests.core.fake_oqs import FakeBinding, FakeNative

ENTROPY = SystemEntropy()
PYCA = PycaCryptoProvider()


def family(*wanted: Family) -> list[Algorithm]:
    """Return the algorithms of some families."""
    return [row.algorithm for row in ALGORITHMS.values() if row.family in wanted]


ML_KEM = family(Family.ML_KEM)
ML_DSA = family(Family.ML_DSA)
SLH_DSA = family(Family.SLH_DSA)
SIGNING = [*ML_DSA, *SLH_DSA]
KEM, SIGNER, HASHED = (
    Algorithm.ML_KEM_768,
    Algorithm.ML_DSA_65,
    Algorithm.SLH_DSA_SHA2_128F,
)
CONTEXT = b"context"


def provider(binding: FakeBinding) -> OqsProvider:
    """Return a provider over a binding."""
    return OqsProvider(lambda: OqsLibrary(binding, binding.oqs_version()))


def public_der(algorithm: Algorithm, raw: bytes | None = None) -> bytes:
    """Return SubjectPublicKeyInfo of some bytes."""
    size = spec(algorithm).public_bytes
    return subject_public_key_info(algorithm, bytes(size) if raw is None else raw)


class TestServed:
    def test_all(self) -> None:
        """
        With a whole build, ML-KEM, ML-DSA and SLH-DSA are served.
        """
        served = provider(FakeBinding())

        assert served.algorithms() == {*ML_KEM, *ML_DSA, *SLH_DSA}
        assert (served.name, served.version, served.absence) == ("oqs", "0.16.0", "")

    def test_absent(self) -> None:
        """
        Without the library nothing is served, and it is known why.
        """
        absent = OqsProvider(lambda: Absent("It is not there."))

        assert absent.algorithms() == frozenset()
        assert (absent.version, absent.absence) == ("", "It is not there.")
        for ask in (
            lambda: absent.generate(KEM, ENTROPY),
            lambda: absent.load(KEM, b""),
            lambda: absent.load_foreign(SIGNER, b""),
            lambda: absent.load_public(HASHED, b""),
        ):
            with pytest.raises(AlgorithmUnavailableError):
                ask()

    @pytest.mark.parametrize("algorithm", [KEM, SIGNER, HASHED])
    def test_left_out(self, algorithm: Algorithm) -> None:
        """
        What the build was made without is not served, all else is.
        """
        served = provider(FakeBinding(without=[mechanism_name(algorithm)]))

        assert served.algorithms() == {*ML_KEM, *ML_DSA, *SLH_DSA} - {algorithm}
        with pytest.raises(AlgorithmUnavailableError):
            served.generate(algorithm, ENTROPY)

    @pytest.mark.parametrize(
        "binding", [FakeBinding(has_contexts=False), FakeBinding(wrong_size=1)]
    )
    def test_other_signatures(self, binding: FakeBinding) -> None:
        """
        Signatures of other sizes, or without contexts, are not those of the standards.
        """
        assert provider(binding).algorithms() == set(ML_KEM)

    def test_no_generator(self) -> None:
        """
        A library whose generator can't be replaced can't make keys from seeds.
        """
        binding = FakeBinding()
        binding.generator.replaceable = False

        assert provider(binding).algorithms() == frozenset()

    def test_nobody_for_mu(self) -> None:
        """
        ML-DSA is served only where somebody takes mu: liboqs, or another provider.
        """

        class Nothing(PycaCryptoProvider):
            def algorithms(self) -> frozenset[Algorithm]:
                return frozenset()

        def served(binding: FakeBinding) -> frozenset[Algorithm]:
            library = OqsLibrary(binding, "0.16.0")
            return OqsProvider(lambda: library, Nothing()).algorithms()

        assert served(FakeBinding()) == {*ML_KEM, *SLH_DSA}
        assert served(FakeBinding(has_mu=True)) == {*ML_KEM, *ML_DSA, *SLH_DSA}

    def test_nothing_is_kept(self) -> None:
        """
        Whatever was made of the library is freed once, with the keys that used it.
        """
        binding = FakeBinding(has_mu=True)
        served = provider(binding)
        for algorithm in served.algorithms():
            private = served.load_foreign(
                algorithm, served.generate(algorithm, ENTROPY)
            )
            public = served.load_public(algorithm, private.public_der())
            assert binding.alive > 0
            del private, public
        gc.collect()

        assert binding.alive == 0

    def test_nothing_is_kept_of_refused_keys(self) -> None:
        """
        A key that is refused leaves nothing behind.
        """
        binding = FakeBinding()
        served = provider(binding)
        served.algorithms()
        wrong = public_der(KEM, b"\xff" * spec(KEM).public_bytes)
        for _ in range(2):
            with pytest.raises(InvalidInputError):
                served.load_public(KEM, wrong)
        binding.cut = 1
        with pytest.raises(RuntimeError):
            served.load(KEM, seed_key_info(KEM, bytes(64)))
        gc.collect()

        assert binding.alive == 0


class TestLengths:
    @pytest.mark.parametrize("algorithm", [*ML_KEM, *SIGNING])
    def test_refused_before_the_binding_is_asked(self, algorithm: Algorithm) -> None:
        """
        Whatever has another length is refused; the binding would pad it in silence.
        """
        binding = FakeBinding(has_mu=True)
        served = provider(binding)
        row, material = spec(algorithm), served.generate(algorithm, ENTROPY)
        handle = served.load(algorithm, material)
        form = private_key_info if row.family is Family.SLH_DSA else seed_key_info
        attempts: list[tuple[type[Exception], Callable[[], object]]] = []
        for size in (0, row.private_bytes - 1, row.private_bytes + 1):
            wrong = form(algorithm, bytes(size))
            attempts += [
                (InvalidInputError, partial(load, algorithm, wrong))
                for load in (served.load, served.load_foreign)
            ]
        for size in (0, 1, row.public_bytes - 1, row.public_bytes + 1):
            der = public_der(algorithm, bytes(size))
            attempts.append(
                (InvalidInputError, partial(served.load_public, algorithm, der))
            )
        if row.is_kem:
            for size in (0, 1, row.ciphertext_bytes - 1, row.ciphertext_bytes + 32):
                attempts.append(
                    (InputSizeError, partial(handle.decapsulate, bytes(size)))
                )
        else:
            parameters = signature_parameters(algorithm)
            signature = handle.sign(b"message", parameters)
            attempts += [
                (
                    SignatureMismatchError,
                    partial(handle.verify, b"message", wrong, parameters),
                )
                for wrong in (b"", signature[:-1], signature + b"\0")
            ]
            long = replace(parameters, context=bytes(256))
            attempts.append((InputSizeError, partial(handle.sign, b"", long)))
        if row.takes_mu:
            by_mu = signature_parameters(algorithm, external_mu=True)
            attempts += [
                (InputSizeError, partial(handle.sign, bytes(size), by_mu))
                for size in (0, 63, 65)
            ]
        binding.calls.clear()

        for error, attempt in attempts:
            with pytest.raises(error):
                attempt()
        assert binding.calls == []

    def test_answers(self) -> None:
        """
        An answer that is shorter than it must be is none.
        """
        binding = FakeBinding(has_mu=True)
        served = provider(binding)
        kem = served.load(KEM, served.generate(KEM, ENTROPY))
        signer = served.load(SIGNER, served.generate(SIGNER, ENTROPY))
        _, ciphertext = kem.encapsulate()
        binding.cut = 1

        for ask in (
            kem.encapsulate,
            lambda: kem.decapsulate(ciphertext),
            lambda: signer.sign(b"", signature_parameters(SIGNER)),
            lambda: signer.sign(
                bytes(64), signature_parameters(SIGNER, external_mu=True)
            ),
            lambda: served.generate(HASHED, ENTROPY),
            lambda: served.load(KEM, seed_key_info(KEM, bytes(64))),
        ):
            with pytest.raises(UnavailableError), Guard(KEM, lambda algorithm: None):
                ask()


class TestSignature:
    @pytest.mark.parametrize("algorithm", SIGNING)
    def test_booleans(self, algorithm: Algorithm) -> None:
        """
        Where the binding says False, a mismatch is raised.
        """
        served = provider(FakeBinding())
        private = served.load(algorithm, served.generate(algorithm, ENTROPY))
        public = served.load_public(algorithm, private.public_der())
        parameters = signature_parameters(algorithm, context=CONTEXT)
        signature = private.sign(b"message", parameters)

        public.verify(b"message", signature, parameters)
        with pytest.raises(SignatureMismatchError):
            public.verify(b"another", signature, parameters)
        with pytest.raises(SignatureMismatchError):
            public.verify(b"message", signature, signature_parameters(algorithm))

    def test_mu_of_liboqs(self) -> None:
        """
        Where liboqs takes mu, it signs and verifies it.
        """
        binding = FakeBinding(has_mu=True)
        served = provider(binding)
        private = served.load(SIGNER, served.generate(SIGNER, ENTROPY))
        public = served.load_public(SIGNER, private.public_der())
        parameters = signature_parameters(SIGNER, external_mu=True)
        binding.calls.clear()

        public.verify(bytes(64), private.sign(bytes(64), parameters), parameters)
        with pytest.raises(SignatureMismatchError):
            public.verify(b"\1" * 64, private.sign(bytes(64), parameters), parameters)
        assert binding.calls == ["sign", "verify", "sign", "verify"]

    def test_mu_of_another(self) -> None:
        """
        Where liboqs takes no mu, the same key of another provider signs and verifies.
        """
        binding = FakeBinding()
        served = provider(binding)
        material = served.generate(SIGNER, ENTROPY)
        theirs = PYCA.load(SIGNER, material)
        parameters = signature_parameters(SIGNER, external_mu=True)
        private = served.load(SIGNER, material)
        public = served.load_public(SIGNER, theirs.public_der())
        binding.calls.clear()
        signature = private.sign(bytes(64), parameters)

        theirs.verify(bytes(64), signature, parameters)
        public.verify(bytes(64), signature, parameters)
        with pytest.raises(SignatureMismatchError):
            public.verify(b"\1" * 64, signature, parameters)
        assert binding.calls == []


class TestMaterial:
    @pytest.mark.parametrize("algorithm", SIGNING)
    def test_from_entropy(self, algorithm: Algorithm) -> None:
        """
        A new key is made of our entropy alone, though the binding draws itself.
        """

        class Counting:
            def random_bytes(self, length: int, /) -> bytes:
                return bytes(range(length))

        binding = FakeBinding()
        entropy: Entropy = Counting()
        first = provider(binding).generate(algorithm, entropy)

        assert provider(FakeBinding()).generate(algorithm, entropy) == first
        assert binding.generator.custom is None

    @pytest.mark.parametrize("algorithm", SLH_DSA)
    def test_wrong_root(self, algorithm: Algorithm) -> None:
        """
        A foreign key of SLH-DSA whose root is not that of its seeds is refused.
        """
        served = provider(FakeBinding())
        material = served.generate(algorithm, ENTROPY)
        octets = read_private_key_info(algorithm, material)
        wrong = private_key_info(algorithm, octets[:-1] + bytes([octets[-1] ^ 1]))

        served.load_foreign(algorithm, material)
        with pytest.raises(InvalidInputError, match="root"):
            served.load_foreign(algorithm, wrong)

    @pytest.mark.parametrize("algorithm", [KEM, SIGNER])
    def test_expanded_key(self, algorithm: Algorithm) -> None:
        """
        An expanded key without the seed, or beside that of another, is refused.
        """
        served = provider(FakeBinding())
        seed = read_private_form(algorithm, served.generate(algorithm, ENTROPY)).seed
        expanded = element(OCTET_STRING, bytes(spec(algorithm).expanded_bytes))
        both = element(SEQUENCE, element(OCTET_STRING, seed), expanded)
        for octets, words, loads in (
            (expanded, "without its seed", (served.load, served.load_foreign)),
            (both, "does not match its seed", (served.load_foreign,)),
        ):
            for load in loads:
                with pytest.raises(InvalidInputError, match=words):
                    load(algorithm, private_key_info(algorithm, octets))


class TestDraws:
    def draws(self) -> tuple[FakeNative, Draws]:
        """Return a generator, and what replaces it."""
        binding: Binding = FakeBinding()
        native = cast("FakeNative", binding.native())
        return native, Draws(binding.native())

    @given(st.binary(min_size=1, max_size=96), st.data())
    def test_parts(self, seed: bytes, data: st.DataObject) -> None:
        """
        A seed is given in whatever parts it is drawn in, and nothing of it afterwards.
        """
        native, draws = self.draws()
        cut = data.draw(st.integers(0, len(seed)))

        made = draws.from_seed(
            seed, lambda: native.random(cut) + native.random(len(seed) - cut)
        )

        assert made == seed
        assert native.custom is None
        assert draws.undisturbed.acquire(blocking=False)

    @pytest.mark.parametrize("size", [0, 31, 33, 64])
    def test_other_size(self, size: int) -> None:
        """
        A key that was made of more or less than its seed is not given out.
        """
        native, draws = self.draws()

        with pytest.raises(RuntimeError, match="did not use the given seed"):
            draws.from_seed(bytes(32), lambda: native.random(size))
        assert native.custom is None
        assert native.random(32) != bytes(32)

    def test_failure(self) -> None:
        """
        The library has its own generator back when making a key fails.
        """
        native, draws = self.draws()

        def fail() -> None:
            raise KeyError

        with pytest.raises(KeyError):
            draws.from_seed(bytes(32), fail)
        assert native.custom is None
        assert draws.from_seed(b"seed", lambda: native.random(4)) == b"seed"

    def test_not_restored(self) -> None:
        """
        If the library doesn't take its generator back, no key is given out.
        """
        native, draws = self.draws()
        native.restoring = -1

        with pytest.raises(RuntimeError, match="no longer uses the given random"):
            draws.from_seed(bytes(32), lambda: native.random(16))

    def test_other_thread(self) -> None:
        """
        Another thread that draws meanwhile is given randomness, never the seed.
        """
        native, draws = self.draws()
        drawn: list[bytes] = []

        def make() -> bytes:
            assert native.custom is not None
            other = threading.Thread(target=lambda: drawn.append(native.random(32)))
            other.start()
            other.join()
            return native.random(32)

        assert draws.from_seed(bytes(32), make) == bytes(32)
        assert len(drawn[0]) == 32
        assert drawn[0] != bytes(32)

    def test_many_threads(self) -> None:
        """
        Many threads have each their own key, and secrets that never repeat.
        """
        served = provider(FakeBinding())
        seeds = [bytes([number]) * 32 for number in range(40)]
        kem = served.load(KEM, served.generate(KEM, ENTROPY))

        def both(seed: bytes) -> tuple[bytes, bytes]:
            handle = served.load(SIGNER, seed_key_info(SIGNER, seed))
            return handle.public_der(), kem.encapsulate()[0]

        alone = [both(seed)[0] for seed in seeds]
        with ThreadPoolExecutor(8) as threads:
            together = list(threads.map(both, seeds * 5))

        assert [public for public, _ in together] == alone * 5
        assert len({secret for _, secret in together}) == len(together)

    def test_encapsulation_waits(self) -> None:
        """
        No secret is encapsulated while the generator is replaced.
        """
        binding = FakeBinding()
        served = provider(binding)
        kem = served.load(KEM, served.generate(KEM, ENTROPY))
        drawing, go_on = threading.Event(), threading.Event()
        random = binding.generator.random

        def slow(size: int) -> bytes:
            if threading.current_thread() is generating:
                drawing.set()
                assert go_on.wait(60)
            return random(size)

        generating = threading.Thread(target=lambda: served.generate(HASHED, ENTROPY))
        binding.generator.random = slow  # type: ignore[method-assign]
        generating.start()
        assert drawing.wait(60)
        with ThreadPoolExecutor(1) as threads:
            encapsulating = threads.submit(kem.encapsulate)
            with pytest.raises(TimeoutError):
                encapsulating.result(timeout=0.1)
            go_on.set()
            secret, ciphertext = encapsulating.result(timeout=60)
        generating.join()

        assert kem.decapsulate(ciphertext) == secret
