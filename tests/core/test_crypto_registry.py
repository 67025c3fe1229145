# SPDX-License-Identifier: MIT
"""Who serves an algorithm, and what leaves the registry."""

from __future__ import annotations

from collections.abc import Mapping

import cryptography
import pytest

from hsm_core._internal.crypto.parameters import signature_parameters
from hsm_core._internal.crypto.pyca import PycaCryptoProvider
from hsm_core._internal.crypto.pyca import provider as pyca_provider
from hsm_core._internal.crypto.registry import (
    CryptoRegistry,
    GeneratedKey,
    default_registry,
)
from hsm_core._internal.entropy import SystemEntropy
from hsm_core.algorithms import Algorithm
from hsm_core.errors import (
    AlgorithmUnavailableError,
    ConfigurationError,
    InvalidInputError,
    SelfTestFailedError,
    SignatureMismatchError,
    UnavailableError,
)
from hsm_core.protocols import CryptoProvider, Entropy, KeyHandle
from tests.core.crypto_samples import (
    ASYMMETRIC,
    PYCA,
    material,
    public_der,
)
from tests.core.faulty_crypto import FaultyHandle, FaultyProvider


class Partial(FaultyProvider):
    """A good provider of some algorithms only, under a name of its own."""

    def __init__(self, name: str, *served: Algorithm) -> None:
        super().__init__(PYCA, Algorithm.AES_256_GCM, "none")
        self._name = name
        self._served = frozenset(served)

    @property
    def name(self) -> str:
        """Name of the fake."""
        return self._name

    def algorithms(self) -> frozenset[Algorithm]:
        """Return what it serves."""
        return self._served


class Exploding(FaultyProvider):
    """A provider that breaks down in a way of its own after its self-tests."""

    def __init__(self) -> None:
        super().__init__(PYCA, Algorithm.AES_256_GCM, "crash")
        self.broken = False

    def generate(self, algorithm: Algorithm, entropy: Entropy, /) -> bytes:
        """Break down."""
        raise OSError("a foreign error")

    def load_public(self, algorithm: Algorithm, public_der: bytes, /) -> KeyHandle:
        """Break down, but for the self-tests."""
        if public_der == b"explode":
            raise RuntimeError("a foreign error")
        return super().load_public(algorithm, public_der)


def registry(
    *providers: CryptoProvider, order: Mapping[str, tuple[str, ...]] | None = None
) -> CryptoRegistry:
    """Return a registry over the system's random generator."""
    return CryptoRegistry(providers, SystemEntropy(), order=order or {})


class TestProviders:
    def test_default(self) -> None:
        """
        By default one provider serves every algorithm, and says its versions.
        """
        statuses = default_registry(SystemEntropy(), {}).statuses()

        assert list(Algorithm) == [s.algorithm for s in statuses]
        assert {("available", "pyca")} == {(s.status, s.provider) for s in statuses}
        assert statuses[0].provider_version.startswith(cryptography.__version__)
        assert "OpenSSL" in statuses[0].provider_version

    def test_first_that_serves(self) -> None:
        """
        The first provider that has the algorithm serves it.
        """
        first = Partial("first", Algorithm.AES_256_GCM)
        second = Partial("second", Algorithm.AES_256_GCM, Algorithm.ED25519)
        tested = registry(first, second)

        assert first is tested.provider_of(Algorithm.AES_256_GCM)
        assert second is tested.provider_of(Algorithm.ED25519)

    def test_order(self) -> None:
        """
        An order puts another provider first, for that algorithm alone.
        """
        first, second = (
            Partial(name, Algorithm.AES_256_GCM, Algorithm.ED25519)
            for name in ("first", "second")
        )
        tested = registry(first, second, order={"ed-25519": ("second", "first")})

        assert first is tested.provider_of(Algorithm.AES_256_GCM)
        assert second is tested.provider_of(Algorithm.ED25519)

    def test_no_substitute(self) -> None:
        """
        A provider that isn't in the order never steps in.
        """
        tested = registry(Partial("empty"), PYCA, order={"Ed25519": ("empty",)})

        with pytest.raises(AlgorithmUnavailableError):
            tested.provider_of(Algorithm.ED25519)

    @pytest.mark.parametrize(
        ("order", "words"),
        [
            ({"Ed25519": ("oqs",)}, "names 'oqs', which isn't there; there are pyca"),
            ({"DES": ("pyca",)}, "unknown algorithm"),
        ],
    )
    def test_bad_order(self, order: dict[str, tuple[str, ...]], words: str) -> None:
        """
        An order that names what isn't there is a configuration error.
        """
        with pytest.raises(ConfigurationError, match=words):
            default_registry(SystemEntropy(), order)

    def test_unavailable(self) -> None:
        """
        An algorithm without provider is listed as such, and asking for it is an error.
        """
        tested = registry(Partial("some", Algorithm.AES_256_GCM))
        for attempt in (
            lambda: tested.require(Algorithm.ED25519),
            lambda: tested.generate(Algorithm.ED25519),
            lambda: tested.load(Algorithm.ED25519, material(Algorithm.ED25519)),
            lambda: tested.stop(Algorithm.ED25519, "reason"),
        ):
            with pytest.raises(AlgorithmUnavailableError, match="serves Ed25519"):
                attempt()

        status = {s.algorithm: s for s in tested.statuses()}[Algorithm.ED25519]

        assert ("unavailable", "", "") == (
            status.status,
            status.provider,
            status.provider_version,
        )
        assert [Algorithm.AES_256_GCM] == [r.algorithm for r in tested.self_test()]

    def test_probe(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        What a build of the library leaves out is not offered.
        """
        unsupported = cryptography.exceptions.UnsupportedAlgorithm

        class NoEd25519:
            @staticmethod
            def from_private_bytes(seed: bytes) -> None:
                raise unsupported("not in this build")

        monkeypatch.setattr(pyca_provider, "Ed25519PrivateKey", NoEd25519)

        assert set(Algorithm) - {Algorithm.ED25519} == PycaCryptoProvider().algorithms()


class TestGenerate:
    @pytest.mark.parametrize("algorithm", Algorithm)
    def test_material_and_public_half(self, algorithm: Algorithm) -> None:
        """
        A generated key loads again and has the public half that came with it.
        """
        tested = registry(PYCA)
        made = tested.generate(algorithm)

        assert made.public_der == tested.load(algorithm, made.material).public_der()
        assert bool(made.public_der) is (algorithm in ASYMMETRIC)

    def test_repr(self) -> None:
        """
        A generated key shows nothing of itself.
        """
        assert "GeneratedKey()" == repr(GeneratedKey(b"secret", b"public"))


class TestHandles:
    @pytest.mark.parametrize("algorithm", ASYMMETRIC)
    def test_sign_and_verify(self, algorithm: Algorithm) -> None:
        """
        Handles of the registry are the provider's, guarded.
        """
        tested = registry(PYCA)
        parameters = signature_parameters(algorithm)
        private = tested.load_foreign(algorithm, material(algorithm))
        public = tested.load_public(algorithm, public_der(algorithm))
        signature = private.sign(b"message", parameters)

        public.verify(b"message", signature, parameters)
        with pytest.raises(SignatureMismatchError):
            public.verify(b"another", signature, parameters)

    def test_repr(self) -> None:
        """
        A handle shows its algorithm only.
        """
        handle = registry(PYCA).load(Algorithm.AES_256_GCM, bytes(32))

        assert "<GuardedHandle AES-256-GCM>" == repr(handle)

    def test_stop_reaches_loaded_handles(self) -> None:
        """
        Stopping an algorithm stops handles loaded before; the first reason is kept.
        """
        tested = registry(PYCA)
        handle = tested.load(Algorithm.HMAC_SHA_256, bytes(32))
        tested.stop(Algorithm.HMAC_SHA_256, "The first reason.")
        tested.stop(Algorithm.HMAC_SHA_256, "Another one.")

        with pytest.raises(SelfTestFailedError) as caught:
            handle.mac(b"")

        assert "HMAC-SHA-256 is stopped: The first reason." == str(caught.value)

    def test_result_of_a_stopped_algorithm_is_dropped(self) -> None:
        """
        What was being computed when its algorithm was stopped is not handed out.
        """

        class Stopping(FaultyHandle):
            def mac(self, data: bytes, /) -> bytes:
                tested.stop(Algorithm.HMAC_SHA_256, "Stopped meanwhile.")
                return super().mac(data)

        class Provider(Partial):
            def load(self, algorithm: Algorithm, material: bytes, /) -> KeyHandle:
                handle = super().load(algorithm, material)
                return Stopping(handle, "none") if self.broken else handle

        provider = Provider("stopping", Algorithm.HMAC_SHA_256)
        provider.broken = False
        tested = registry(provider)
        tested.require(Algorithm.HMAC_SHA_256)
        provider.broken = True
        handle = tested.load(Algorithm.HMAC_SHA_256, bytes(32))

        with pytest.raises(SelfTestFailedError, match="Stopped meanwhile"):
            handle.mac(b"")


class TestNothingForeign:
    def test_generate(self) -> None:
        """
        A provider that breaks down while making a key is an error of our own.
        """
        with pytest.raises(UnavailableError, match="failed unexpectedly") as caught:
            registry(Exploding()).generate(Algorithm.AES_256_GCM)

        assert isinstance(caught.value.__cause__, OSError)

    def test_use(self) -> None:
        """
        A provider that breaks down in use is an error of our own.
        """
        provider = Exploding()
        tested = registry(provider)
        tested.require(Algorithm.AES_256_GCM)
        provider.broken = True
        handle = tested.load(Algorithm.AES_256_GCM, bytes(32))

        with pytest.raises(UnavailableError, match="failed unexpectedly"):
            handle.seal(bytes(12), b"", b"")

    def test_load(self) -> None:
        """
        A provider that breaks down while loading is an error of our own.
        """
        with pytest.raises(UnavailableError, match="failed unexpectedly"):
            registry(Exploding()).load_public(Algorithm.ED25519, b"explode")

    def test_our_own_pass(self) -> None:
        """
        Errors of our own come out as they are.
        """
        with pytest.raises(InvalidInputError, match="not a private key of Ed25519"):
            registry(PYCA).load(Algorithm.ED25519, b"")
