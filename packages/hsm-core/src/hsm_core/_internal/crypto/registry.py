# SPDX-License-Identifier: MIT
"""
Which provider serves an algorithm, and whether it may.

Every algorithm passes its known-answer test before it is used for the first time, and
every new key its pairwise consistency test before anybody sees it. An algorithm that
fails is stopped for the life of the process; the others go on.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from hsm_core._internal.crypto.guard import Guard, GuardedHandle
from hsm_core._internal.crypto.pyca import PycaCryptoProvider
from hsm_core._internal.crypto.selftest import (
    known_answer_test,
    pairwise_consistency_test,
)
from hsm_core.algorithms import Algorithm, parse_algorithm
from hsm_core.errors import (
    AlgorithmUnavailableError,
    ConfigurationError,
    SelfTestFailedError,
    UnknownAlgorithmError,
)
from hsm_core.operations import AlgorithmStatus, SelfTestResult
from hsm_core.protocols import CryptoProvider, Entropy, KeyHandle

__all__ = ["CryptoRegistry", "GeneratedKey", "default_registry"]

_DEFAULT_ORDER: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class GeneratedKey:
    """
    A new key that passed its pairwise consistency test.

    Attributes:
        material: PKCS#8 DER, or the bare symmetric key.
        public_der: SubjectPublicKeyInfo; empty for a symmetric key.
    """

    material: bytes = field(repr=False)
    public_der: bytes = field(repr=False)


class _Slot:
    """One algorithm: its provider, and what the self-tests said of it."""

    __slots__ = ("guard", "last_made", "lock", "provider", "reason")

    def __init__(self, provider: CryptoProvider, guard: Guard) -> None:
        self.provider = provider
        self.guard = guard
        self.lock = threading.RLock()
        self.reason = ""
        self.last_made = b""


class CryptoRegistry:
    """
    The door to all cryptography: generate, load, test, stop.

    Safe for many threads.

    Args:
        providers: In order of preference.

        entropy: Where new keys come from.

        order: Names of providers by name of algorithm, where it differs. Only those
            named are asked, so that a setting never ends in a silent substitute.

    Raises:
        ConfigurationError: *order* names an algorithm or a provider that isn't there.
    """

    def __init__(
        self,
        providers: Sequence[CryptoProvider],
        entropy: Entropy,
        *,
        order: Mapping[str, tuple[str, ...]] = _DEFAULT_ORDER,
    ) -> None:
        self._entropy = entropy
        self._ready: set[Algorithm] = set()
        self._slots: dict[Algorithm, _Slot] = {}
        chosen = _parse_order(order, providers)
        for algorithm in Algorithm:
            for provider in chosen.get(algorithm, providers):
                if algorithm in provider.algorithms():
                    guard = Guard(algorithm, self.require)
                    self._slots[algorithm] = _Slot(provider, guard)
                    break

    def require(self, algorithm: Algorithm) -> None:
        """
        Return if the algorithm may be used; the first time, it is tested now.

        Raises:
            AlgorithmUnavailableError: No provider serves it.
            SelfTestFailedError: It is stopped.
        """
        if algorithm not in self._ready:
            self._settle(algorithm)

    def provider_of(self, algorithm: Algorithm) -> CryptoProvider:
        """
        Return the provider that serves an algorithm, whether it is stopped or not.

        Raises:
            AlgorithmUnavailableError: There is none.
        """
        return self._slot(algorithm).provider

    def generate(self, algorithm: Algorithm) -> GeneratedKey:
        """
        Make a key and test that its halves belong together.

        Raises:
            AlgorithmUnavailableError: No provider serves the algorithm.
            SelfTestFailedError: It is stopped, or this key failed its test and
                stopped it; the key is discarded.
            EntropyUnavailableError: The random generator is not healthy.
        """
        slot = self._slot(algorithm)
        with slot.guard:
            material = slot.provider.generate(algorithm, self._entropy)
            try:
                public_der = pairwise_consistency_test(
                    algorithm, slot.provider, material
                )
            except SelfTestFailedError as failure:
                self.stop(algorithm, str(failure))
                raise
            self._check_fresh(algorithm, slot, material)
        return GeneratedKey(material, public_der)

    def load(self, algorithm: Algorithm, material: bytes) -> KeyHandle:
        """
        Load material that we made and have just authenticated.

        Raises:
            InvalidInputError: It is not material of this algorithm.
            AlgorithmUnavailableError: No provider serves the algorithm.
            SelfTestFailedError: It is stopped.
        """
        slot = self._slot(algorithm)
        with slot.guard:
            return GuardedHandle(slot.provider.load(algorithm, material), slot.guard)

    def load_foreign(self, algorithm: Algorithm, material: bytes) -> KeyHandle:
        """Load material from elsewhere, fully checked; else as `load`."""
        slot = self._slot(algorithm)
        with slot.guard:
            handle = slot.provider.load_foreign(algorithm, material)
            return GuardedHandle(handle, slot.guard)

    def load_public(self, algorithm: Algorithm, der: bytes) -> KeyHandle:
        """Load SubjectPublicKeyInfo, fully checked; else as `load`."""
        slot = self._slot(algorithm)
        with slot.guard:
            handle = slot.provider.load_public(algorithm, der)
            return GuardedHandle(handle, slot.guard)

    def statuses(self) -> tuple[AlgorithmStatus, ...]:
        """Return who serves each algorithm of the table."""
        return tuple(map(self._status, Algorithm))

    def self_test(self) -> tuple[SelfTestResult, ...]:
        """
        Run the known-answer tests of every algorithm that has a provider.

        One that is stopped stays so and is not tried again.
        """
        return tuple(self._test(algorithm) for algorithm in self._slots)

    def stop(self, algorithm: Algorithm, reason: str) -> None:
        """
        Stop an algorithm until the process starts again.

        Handles that were loaded before are stopped too. The first reason is kept.
        """
        slot = self._slot(algorithm)
        with slot.lock:
            slot.reason = slot.reason or reason
            self._ready.discard(algorithm)

    def _slot(self, algorithm: Algorithm) -> _Slot:
        try:
            return self._slots[algorithm]
        except KeyError:
            raise AlgorithmUnavailableError(
                f"No provider on this machine serves {algorithm}.",
                algorithm=algorithm.value,
            ) from None

    def _settle(self, algorithm: Algorithm) -> None:
        slot = self._slot(algorithm)
        with slot.lock:
            if not slot.reason and algorithm not in self._ready:
                self._run_known_answers(algorithm, slot)
        if slot.reason:
            raise SelfTestFailedError(
                f"{algorithm} is stopped: {slot.reason}", algorithm=algorithm.value
            )

    def _test(self, algorithm: Algorithm) -> SelfTestResult:
        slot = self._slot(algorithm)
        with slot.lock:
            if not slot.reason:
                self._run_known_answers(algorithm, slot)
        return SelfTestResult(
            algorithm=algorithm,
            provider=slot.provider.name,
            passed=not slot.reason,
            reason=slot.reason,
        )

    def _run_known_answers(self, algorithm: Algorithm, slot: _Slot) -> None:
        try:
            known_answer_test(algorithm, slot.provider)
        except SelfTestFailedError as failure:
            self.stop(algorithm, str(failure))
            return
        self._ready.add(algorithm)

    def _check_fresh(self, algorithm: Algorithm, slot: _Slot, material: bytes) -> None:
        """Compare a new key with the one before: equal keys mean a stuck generator."""
        digest = hashlib.sha256(material).digest()
        with slot.lock:
            repeated = digest == slot.last_made
            slot.last_made = digest
        if repeated:
            self.stop(algorithm, "The generator made the same key twice.")

    def _status(self, algorithm: Algorithm) -> AlgorithmStatus:
        slot = self._slots.get(algorithm)
        if slot is None:
            return AlgorithmStatus(algorithm=algorithm, status="unavailable")
        return AlgorithmStatus(
            algorithm=algorithm,
            status="stopped" if slot.reason else "available",
            provider=slot.provider.name,
            provider_version=slot.provider.version,
        )


def default_registry(
    entropy: Entropy, order: Mapping[str, tuple[str, ...]] = _DEFAULT_ORDER
) -> CryptoRegistry:
    """
    Return a registry of the providers that this machine has.

    Raises:
        ConfigurationError: *order* names an algorithm or a provider that isn't there.
    """
    return CryptoRegistry((PycaCryptoProvider(),), entropy, order=order)


def _parse_order(
    order: Mapping[str, tuple[str, ...]], providers: Sequence[CryptoProvider]
) -> dict[Algorithm, list[CryptoProvider]]:
    by_name = {provider.name: provider for provider in providers}
    chosen: dict[Algorithm, list[CryptoProvider]] = {}
    for name, wanted in order.items():
        try:
            algorithm = parse_algorithm(name)
            chosen[algorithm] = [by_name[provider] for provider in wanted]
        except UnknownAlgorithmError as error:
            raise ConfigurationError(
                f"The order of providers names an unknown algorithm: {error}",
                field="providers",
            ) from None
        except KeyError as error:
            raise ConfigurationError(
                f"The order of providers for {name} names {error}, which isn't there; "
                f"there are {', '.join(by_name)}.",
                field="providers",
            ) from None
    return chosen
