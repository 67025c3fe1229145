# SPDX-License-Identifier: MIT
"""Each injected fault stops its own algorithm and the composites of it, no other."""

from __future__ import annotations

import errno
import os
import threading
import time
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import cast
from unittest.mock import patch

import pytest

from hsm_core import operations as ops
from hsm_core._internal.crypto import registry as served
from hsm_core._internal.crypto.registry import CryptoRegistry
from hsm_core._internal.crypto.selftest import (
    known_answer_test,
    pairwise_consistency_test,
)
from hsm_core._internal.crypto.selftest.cases import known_answers
from hsm_core.algorithms import ALGORITHMS, Algorithm, Cost
from hsm_core.errors import (
    EntropyUnavailableError,
    SelfTestFailedError,
    UnavailableError,
)
from hsm_core.factory import open_hsm
from hsm_core.model import MessageDetail
from hsm_core.protocols import CryptoProvider, KeyHandle
from hsm_core.settings import KeyStoreKind, Settings
from hsm_core.testing import caller
from tests.contract.provider_rows import flow
from tests.core.faulty_crypto import (
    METHODS,
    DyingEntropy,
    FaultyHandle,
    FaultyProvider,
    ShortProvider,
    StuckProvider,
    faulty_registry,
    good_registry,
    provider_of,
)

FAULTS = [
    (row.algorithm, method)
    for row in ALGORITHMS.values()
    for method in (*METHODS[row.family], "crash")
]
"""Every method of every algorithm, wrong or breaking down."""

UNSEEN = {
    *("agree", "verify", "skip tag", "skip check"),
    *("no rejection", "same secret", "one half"),
}
"""What no pair of keys shows: both sides wrong in one way, or anything accepted."""

PAIR_FAULTS = [
    (algorithm, method)
    for algorithm, method in FAULTS
    if method not in UNSEEN
    and not (method == "public_der" and algorithm.startswith("SLH"))
]
"""Faults that a right pair of keys shows."""

QUICK = [a for a, row in ALGORITHMS.items() if row.use_cost is Cost.QUICK]
SLOW = [a for a in ALGORITHMS if a not in QUICK]
PROMPT = [a for a in Algorithm if a in QUICK or a.endswith("f")]
"""All but the sets of SLH-DSA whose signatures take longest."""
SAMPLE = {ALGORITHMS[name].family: name for name in reversed(PROMPT)}.values()
"""The first algorithm of each family."""


def material(algorithm: Algorithm) -> bytes:
    """Return a good key: a known one."""
    known = known_answers(algorithm)
    return next(
        known[n] for n in ("key", "kw_key", "cbc_key", "agreement_key") if n in known
    )


def stopped_with(algorithm: Algorithm) -> set[Algorithm]:
    """Return an algorithm and its composites."""
    return {algorithm} | {a for a, r in ALGORITHMS.items() if algorithm in r.components}


class Disagreeing(FaultyProvider):
    """A provider whose private keys agree on another secret each time."""

    def __init__(self, algorithm: Algorithm) -> None:
        super().__init__(provider_of(algorithm), algorithm, "none")

    def _wrap(self, algorithm: Algorithm, handle: KeyHandle) -> KeyHandle:
        made = _DisagreeingHandle(handle, "none") if self.broken else handle
        return cast("KeyHandle", made)


class _DisagreeingHandle(FaultyHandle):
    def agree(self, peer_public_der: bytes, /) -> bytes:
        return os.urandom(32)


def faulty(
    algorithm: Algorithm, method: str, *, broken: bool = True
) -> tuple[CryptoRegistry, FaultyProvider]:
    """Return a registry with one fault, and the provider that has it."""

    def make(true: CryptoProvider) -> FaultyProvider:
        made = FaultyProvider(true, algorithm, method)
        made.broken = broken
        return made

    return faulty_registry(algorithm, make)


def assert_gives_nothing(tested: CryptoRegistry, stopped: Algorithm) -> None:
    """Check that an algorithm gives nothing at all."""
    attempts: tuple[Callable[[], object], ...] = (
        lambda: tested.require(stopped),
        lambda: tested.generate(stopped),
        lambda: tested.load(stopped, material(stopped)),
        lambda: tested.load_foreign(stopped, material(stopped)),
        lambda: tested.load_public(stopped, b""),
    )
    for attempt in attempts:
        with pytest.raises(SelfTestFailedError):
            attempt()


def assert_only_stopped(tested: CryptoRegistry, algorithm: Algorithm) -> None:
    """Check that it and its composites give nothing, and each other something."""
    stopped = stopped_with(algorithm)
    for one in stopped:
        assert_gives_nothing(tested, one)
    for other in set(QUICK) - stopped:
        flow(tested.load(other, material(other)))
    assert stopped == {s.algorithm for s in tested.statuses() if s.status == "stopped"}


class TestKnownAnswers:
    def test_power_up(self) -> None:
        """
        What is quick passes at power-up; nothing is stopped.
        """
        tested = good_registry()

        tested.power_up_test()

        assert "stopped" not in {s.status for s in tested.statuses()}

    @pytest.mark.parametrize("algorithm", SAMPLE)
    def test_fault_stops_output(self, algorithm: Algorithm) -> None:
        """
        A fault found at power-up stops that algorithm and its composites, no other.
        """
        first = METHODS[ALGORITHMS[algorithm].family][0]
        method = "verify" if algorithm in SLOW else first
        tested, _ = faulty(algorithm, method)

        tested.power_up_test()

        assert_only_stopped(tested, algorithm)

    @pytest.mark.parametrize(("algorithm", "method"), FAULTS)
    def test_every_fault_is_found(self, algorithm: Algorithm, method: str) -> None:
        """
        A fault in any method is found before the first use.
        """
        tested, _ = faulty(algorithm, method)

        assert_gives_nothing(tested, algorithm)

    def test_slow_ones_are_tested_before_first_use(self) -> None:
        """
        A fault of a slow algorithm that power-up leaves is found before its first use.
        """
        algorithm = Algorithm.SLH_DSA_SHAKE_128S
        tested, _ = faulty(algorithm, "sign")
        tested.power_up_test()

        assert "stopped" not in {s.status for s in tested.statuses()}
        assert_only_stopped(tested, algorithm)

    def test_reason_names_the_fault(self) -> None:
        """
        The failure says which algorithm and what was wrong, and no key.
        """
        inner = provider_of(Algorithm.HMAC_SHA_256)
        provider = FaultyProvider(inner, Algorithm.HMAC_SHA_256, "mac")

        with pytest.raises(SelfTestFailedError) as caught:
            known_answer_test(Algorithm.HMAC_SHA_256, provider)

        assert "The self-test of HMAC-SHA-256 failed: wrong mac." == str(caught.value)
        assert {"algorithm": "HMAC-SHA-256", "reason": "wrong mac"} == (
            caught.value.facts
        )

    def test_reason_of_a_composite_names_the_component(self) -> None:
        """
        A composite that is stopped by its component says by which, and why.
        """
        tested, _ = faulty(Algorithm.X25519, "agree")
        tested.power_up_test()

        with pytest.raises(SelfTestFailedError) as caught:
            tested.require(Algorithm.MLKEM768_X25519_SHA3_256)

        assert (
            "MLKEM768-X25519-SHA3-256 is disabled: its component X25519 is disabled: "
            "The self-test of X25519 failed: wrong shared secret." == str(caught.value)
        )

    def test_stays_stopped(self) -> None:
        """
        A later self-test doesn't revive an algorithm, even if its fault is gone.
        """
        tested, provider = faulty(Algorithm.EC_P256, "sign")
        tested.power_up_test()
        provider.broken = False
        tested.power_up_test()

        assert_only_stopped(tested, Algorithm.EC_P256)

    def test_on_demand(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """
        The self-test on demand runs all, slow ones too, and stops what broke down.
        """
        ran = set()

        def note(algorithm: Algorithm, provider: CryptoProvider) -> None:
            ran.add(algorithm)
            if algorithm in QUICK:  # Those of the others take seconds.
                known_answer_test(algorithm, provider)

        monkeypatch.setattr(served, "known_answer_test", note)
        tested, provider = faulty(Algorithm.ML_KEM_768, "decapsulate", broken=False)
        stopped = stopped_with(Algorithm.ML_KEM_768)
        there = {s.algorithm for s in tested.statuses() if s.status == "available"}
        handles = [tested.load(algorithm, material(algorithm)) for algorithm in stopped]
        for handle in handles:
            flow(handle)
        provider.broken = True
        ran.clear()
        results = tested.self_test(threading.Event())

        assert there == ran | stopped
        assert there - stopped == {r.algorithm for r in results if r.passed}
        assert stopped == {r.algorithm for r in results if not r.passed}
        for handle in handles:
            with pytest.raises(SelfTestFailedError):
                flow(handle)

    def test_needs_entropy(self) -> None:
        """
        A known-answer test that lacks randomness is repeated, and stops nothing.
        """
        algorithm, entropy = Algorithm.MLKEM768_X25519_SHA3_256, DyingEntropy()
        provider_of(algorithm)
        tested = good_registry(entropy)
        entropy.is_dead = True

        with pytest.raises(EntropyUnavailableError):
            tested.require(algorithm)

        entropy.is_dead = False
        tested.require(algorithm)

    @pytest.mark.parametrize(
        "lack", [MemoryError(), OSError(errno.EMFILE, "")], ids=str
    )
    def test_needs_memory_and_files(self, lack: Exception) -> None:
        """A test that could not be run is repeated, and stops nothing."""
        algorithm = Algorithm.SLH_DSA_SHA2_128F
        tested, provider = faulty_registry(
            algorithm, lambda true: ShortProvider(true, lack)
        )
        for attempt in (tested.require, tested.test_early, tested.generate):
            with pytest.raises((MemoryError, UnavailableError)):
                attempt(algorithm)

        provider.broken = False
        tested.require(algorithm)
        assert () == tested.stopped()


class TestPairwiseConsistency:
    @pytest.mark.parametrize("algorithm", PROMPT)
    def test_good_pair(self, algorithm: Algorithm) -> None:
        """
        A good key passes and gives its public half.
        """
        provider, key = provider_of(algorithm), material(algorithm)
        expected = provider.load(algorithm, key).public_der()

        assert expected == pairwise_consistency_test(algorithm, provider, key)
        assert bool(expected) is ALGORITHMS[algorithm].is_asymmetric

    @pytest.mark.parametrize(("algorithm", "method"), PAIR_FAULTS)
    def test_fault_is_found(self, algorithm: Algorithm, method: str) -> None:
        """
        A key whose halves don't belong together fails.
        """
        provider = FaultyProvider(provider_of(algorithm), algorithm, method)

        with pytest.raises(SelfTestFailedError):
            pairwise_consistency_test(algorithm, provider, material(algorithm))

    @pytest.mark.parametrize("agrees", [True, False])
    def test_purpose_of_a_curve(self, *, agrees: bool) -> None:
        """
        A key that may sign is tested for agreement only if it may agree too.
        """
        algorithm, key = Algorithm.EC_P256, material(Algorithm.EC_P256)
        fault = pytest.raises(SelfTestFailedError) if agrees else nullcontext()

        with fault:
            pairwise_consistency_test(
                algorithm, Disagreeing(algorithm), key, agrees=agrees
            )

    def test_purpose_of_a_new_key(self) -> None:
        """
        A key that may only agree is not made where agreement is broken.
        """
        algorithm = Algorithm.EC_P256
        registry, provider = faulty_registry(
            algorithm, lambda _: Disagreeing(algorithm)
        )
        provider.broken = False
        registry.require(algorithm)
        provider.broken = True

        registry.generate(algorithm, agrees=False)
        with pytest.raises(SelfTestFailedError):
            registry.generate(algorithm)

    @pytest.mark.parametrize("algorithm", [a for a in SAMPLE if a in QUICK])
    def test_fault_stops_output(self, algorithm: Algorithm) -> None:
        """
        A key that fails is not handed out; its algorithm and its composites stop.
        """
        method = next(m for a, m in PAIR_FAULTS if a is algorithm)
        tested, provider = faulty(algorithm, method, broken=False)
        tested.require(algorithm)
        provider.broken = True

        with pytest.raises(SelfTestFailedError):
            tested.generate(algorithm)

        for stopped in stopped_with(algorithm):
            assert_gives_nothing(tested, stopped)


class TestRandomGenerator:
    @pytest.mark.parametrize("algorithm", SAMPLE)
    def test_repeated_key_stops_output(self, algorithm: Algorithm) -> None:
        """
        A generator that gives the same key twice stops its algorithm.
        """
        tested, _ = faulty_registry(
            algorithm, lambda true: StuckProvider(true, algorithm)
        )
        tested.generate(algorithm)

        with pytest.raises(SelfTestFailedError, match="the same key twice"):
            tested.generate(algorithm)

        assert_gives_nothing(tested, algorithm)

    @pytest.mark.parametrize("algorithm", SAMPLE)
    def test_unhealthy_entropy_makes_no_key(self, algorithm: Algorithm) -> None:
        """
        No key is made while the generator is unhealthy; keys that exist go on working.
        """
        provider_of(algorithm)
        entropy = DyingEntropy()
        tested = good_registry(entropy)
        tested.require(algorithm)
        entropy.is_dead = True

        with pytest.raises(EntropyUnavailableError):
            tested.generate(algorithm)

        handle = tested.load(algorithm, material(algorithm))
        if ALGORITHMS[algorithm].is_kem:  # to encapsulate takes fresh randomness
            handle.decapsulate(known_answers(algorithm)["ciphertext"])
        else:
            flow(handle)

    @pytest.mark.parametrize("algorithm", SAMPLE)
    def test_stuck_system_generator(
        self, algorithm: Algorithm, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """
        An operating system that repeats itself is noticed, and no key is made.
        """
        provider_of(algorithm)
        tested = good_registry()
        tested.require(algorithm)
        monkeypatch.setattr(os, "urandom", bytes)

        with pytest.raises(EntropyUnavailableError):
            tested.generate(algorithm)


def test_open_hsm_finds_a_fault_by_itself() -> None:
    """
    An open HSM soon shows an algorithm with a fault as disabled, and records it once.
    """
    tested, _ = faulty(Algorithm.AES_256_GCM, "seal")
    settings = Settings(key_store=KeyStoreKind.MEMORY, audit_log=None)
    with (
        patch("hsm_core.factory.default_registry", return_value=tested),
        open_hsm(settings, master_key=bytes(32), hmac_key=bytes(32)) as hsm,
    ):
        query = ops.ListAuditEvents(kind=("system.self-test",))
        look = partial(hsm.act_as(caller()).execute, query)
        hsm.worker.hurry()
        deadline = time.monotonic() + 120
        while not look().items:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        while not tested.is_ready(Algorithm.AES_128_GCM):
            assert time.monotonic() < deadline
            time.sleep(0.01)

        found = [entry.event for entry in look().items]
        status = {s.algorithm: s.status for s in tested.statuses()}
        assert [("AES-256-GCM", "self_test_failed")] == [
            (event.detail.text, event.code)
            for event in found
            if isinstance(event.detail, MessageDetail)
        ]
        assert "stopped" == status[Algorithm.AES_256_GCM]
