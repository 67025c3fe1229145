# SPDX-License-Identifier: MIT
"""Each injected fault stops its own algorithm, and no other."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest

from hsm_core._internal.crypto.parameters import signature_parameters
from hsm_core._internal.crypto.pyca import PycaCryptoProvider
from hsm_core._internal.crypto.registry import CryptoRegistry
from hsm_core._internal.crypto.selftest import (
    known_answer_test,
    pairwise_consistency_test,
)
from hsm_core._internal.entropy import SystemEntropy
from hsm_core.algorithms import ALGORITHMS, Algorithm, Family
from hsm_core.errors import EntropyUnavailableError, SelfTestFailedError
from hsm_core.protocols import CryptoProvider, KeyHandle, OAEPParameters
from tests.core.faulty_crypto import DeadEntropy, FaultyProvider, StuckProvider

PYCA = PycaCryptoProvider()

METHODS = {
    Family.AEAD: ("seal", "open", "skip tag"),
    Family.RSA: ("sign", "verify", "encrypt", "decrypt"),
    Family.ECDSA: ("sign", "verify"),
    Family.EDDSA: ("sign", "verify"),
    Family.MAC: ("mac",),
}

FAULTS = [
    (row.algorithm, method)
    for row in ALGORITHMS.values()
    for method in (*METHODS[row.family], "crash")
]
"""Every method of every algorithm, wrong or breaking down."""

PAIR_FAULTS = [
    (algorithm, method)
    for algorithm, method in FAULTS
    if method not in {"verify", "skip tag"}
]
"""Faults that a right pair of keys shows; accepting anything is for known answers."""


def registry(provider: CryptoProvider) -> CryptoRegistry:
    """Return a registry of one provider."""
    return CryptoRegistry((provider,), SystemEntropy())


def use(handle: KeyHandle) -> None:
    """Make a key produce something."""
    match ALGORITHMS[handle.algorithm].family:
        case Family.AEAD:
            handle.seal(bytes(12), b"message", b"")
        case Family.MAC:
            handle.mac(b"message")
        case Family.RSA:
            handle.encrypt(b"message", OAEPParameters())
        case Family.ECDSA | Family.EDDSA:
            handle.sign(b"message", signature_parameters(handle.algorithm))


@pytest.fixture(scope="module")
def materials() -> dict[Algorithm, bytes]:
    """Give one good key of each algorithm."""
    return {a: PYCA.generate(a, SystemEntropy()) for a in Algorithm}


def assert_only_stopped(
    tested: CryptoRegistry, stopped: Algorithm, materials: dict[Algorithm, bytes]
) -> None:
    """Check that one algorithm gives nothing, and each other something."""
    gives_nothing: tuple[Callable[[], object], ...] = (
        lambda: tested.require(stopped),
        lambda: tested.generate(stopped),
        lambda: tested.load(stopped, materials[stopped]),
        lambda: tested.load_foreign(stopped, materials[stopped]),
        lambda: tested.load_public(stopped, b""),
    )
    for attempt in gives_nothing:
        with pytest.raises(SelfTestFailedError):
            attempt()
    for algorithm in set(Algorithm) - {stopped}:
        use(tested.load(algorithm, materials[algorithm]))
    assert {stopped} == {
        s.algorithm for s in tested.statuses() if s.status != "available"
    }
    assert {stopped} == {r.algorithm for r in tested.self_test() if not r.passed}


class TestKnownAnswers:
    def test_all_pass_in_time(self) -> None:
        """
        Every algorithm passes, and all of them within three seconds.
        """
        started = time.monotonic()

        results = registry(PYCA).self_test()

        assert list(Algorithm) == [r.algorithm for r in results if r.passed]
        assert time.monotonic() - started <= 3

    @pytest.mark.parametrize(("algorithm", "method"), FAULTS)
    def test_fault_stops_output(
        self, algorithm: Algorithm, method: str, materials: dict[Algorithm, bytes]
    ) -> None:
        """
        A fault in any method is found before the first use, and stops that algorithm.
        """
        tested = registry(FaultyProvider(PYCA, algorithm, method))

        assert_only_stopped(tested, algorithm, materials)

    def test_reason_names_the_fault(self) -> None:
        """
        The failure says which algorithm and what was wrong, and no key.
        """
        provider = FaultyProvider(PYCA, Algorithm.HMAC_SHA_256, "mac")

        with pytest.raises(SelfTestFailedError) as caught:
            known_answer_test(Algorithm.HMAC_SHA_256, provider)

        assert "The self-test of HMAC-SHA-256 failed: wrong MAC." == str(caught.value)
        assert {"algorithm": "HMAC-SHA-256", "reason": "wrong MAC"} == (
            caught.value.facts
        )

    def test_stays_stopped(self, materials: dict[Algorithm, bytes]) -> None:
        """
        A later self-test doesn't revive an algorithm, even if its fault is gone.
        """
        provider = FaultyProvider(PYCA, Algorithm.EC_P256, "sign")
        tested = registry(provider)
        tested.self_test()
        provider.broken = False

        assert_only_stopped(tested, Algorithm.EC_P256, materials)

    def test_later_fault_is_found(self, materials: dict[Algorithm, bytes]) -> None:
        """
        A self-test on demand stops handles whose algorithm broke down after its start.
        """
        provider = FaultyProvider(PYCA, Algorithm.AES_256_GCM, "seal")
        provider.broken = False
        tested = registry(provider)
        handle = tested.load(Algorithm.AES_256_GCM, materials[Algorithm.AES_256_GCM])
        use(handle)
        provider.broken = True
        tested.self_test()

        with pytest.raises(SelfTestFailedError):
            use(handle)

        assert_only_stopped(tested, Algorithm.AES_256_GCM, materials)


class TestPairwiseConsistency:
    @pytest.mark.parametrize("algorithm", Algorithm)
    def test_good_pair(
        self, algorithm: Algorithm, materials: dict[Algorithm, bytes]
    ) -> None:
        """
        A good key passes and gives its public half.
        """
        expected = PYCA.load(algorithm, materials[algorithm]).public_der()

        assert expected == pairwise_consistency_test(
            algorithm, PYCA, materials[algorithm]
        )

    @pytest.mark.parametrize(("algorithm", "method"), PAIR_FAULTS)
    def test_fault_stops_output(
        self, algorithm: Algorithm, method: str, materials: dict[Algorithm, bytes]
    ) -> None:
        """
        A key that fails is not handed out, and its algorithm stops.
        """
        provider = FaultyProvider(PYCA, algorithm, method)
        provider.broken = False
        tested = registry(provider)
        tested.require(algorithm)
        provider.broken = True

        with pytest.raises(SelfTestFailedError):
            tested.generate(algorithm)

        assert_only_stopped(tested, algorithm, materials)


class TestRandomGenerator:
    @pytest.mark.parametrize("algorithm", Algorithm)
    def test_repeated_key_stops_output(
        self, algorithm: Algorithm, materials: dict[Algorithm, bytes]
    ) -> None:
        """
        A generator that gives the same key twice stops its algorithm.
        """
        tested = registry(StuckProvider(PYCA, algorithm))
        tested.generate(algorithm)

        with pytest.raises(SelfTestFailedError, match="the same key twice"):
            tested.generate(algorithm)

        assert_only_stopped(tested, algorithm, materials)

    @pytest.mark.parametrize("algorithm", Algorithm)
    def test_unhealthy_entropy_makes_no_key(
        self, algorithm: Algorithm, materials: dict[Algorithm, bytes]
    ) -> None:
        """
        No key is made while the generator is unhealthy; keys that exist go on working.
        """
        tested = CryptoRegistry((PYCA,), DeadEntropy())

        with pytest.raises(EntropyUnavailableError):
            tested.generate(algorithm)

        use(tested.load(algorithm, materials[algorithm]))

    @pytest.mark.parametrize("algorithm", Algorithm)
    def test_stuck_system_generator(
        self, algorithm: Algorithm, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        An operating system that repeats itself is noticed, and no key is made.
        """
        tested = registry(PYCA)
        monkeypatch.setattr(os, "urandom", bytes)

        with pytest.raises(EntropyUnavailableError):
            tested.generate(algorithm)
