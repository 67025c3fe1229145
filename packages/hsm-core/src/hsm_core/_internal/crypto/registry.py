# SPDX-License-Identifier: MIT
"""
Crypto registry: generates and loads all keys.

Every new stored key passes its pairwise consistency test before use, and every handle
is guarded, so that a stopped algorithm returns no results.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from types import MappingProxyType
from typing import Final

from hsm_core._internal.crypto.der import bad_material
from hsm_core._internal.crypto.formats import check_random, explained, kept_form
from hsm_core._internal.crypto.guard import Guard, GuardedHandle
from hsm_core._internal.crypto.providers import (
    composite_provider,
    default_providers,
    parse_order,
    what_to_install,
)
from hsm_core._internal.crypto.selftest import (
    known_answer_test,
    known_verification_test,
    pairwise_consistency_test,
)
from hsm_core._internal.lib.cells import Cell
from hsm_core.algorithms import ALGORITHMS, Algorithm, Cost, spec
from hsm_core.errors import (
    AlgorithmUnavailableError,
    InvalidInputError,
    OverloadedError,
    SelfTestFailedError,
    UnavailableError,
)
from hsm_core.operations import AlgorithmStatus, SelfTestResult
from hsm_core.protocols import CryptoProvider, Entropy, KeyHandle

_MOST_PAUSE_SECONDS: Final = 0.1


class Slot:
    """One algorithm: its provider, and its self-test result."""

    __slots__ = ("guard", "last_made", "lock", "provider", "reason")

    def __init__(self, provider: CryptoProvider, guard: Guard) -> None:
        self.provider = provider
        self.guard = guard
        self.lock = threading.RLock()
        self.reason = ""
        self.last_made = b""


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


class CryptoRegistry:
    """
    Registry of all cryptography: generate, load, test, stop. Thread-safe.

    The first provider with an algorithm serves it; it is chosen when the algorithm is
    first needed.

    Args:
        providers: In order of preference.

        entropy: Source of new keys.

        order: Names of providers by name of algorithm, where it differs. Only the named
            ones are asked, so a setting never ends in a silent substitute.

        composites: Makes the provider of composites; components come from this
            registry, so that a stopped component stops its composites.

    Attributes:
        changes: Bumped when an algorithm is stopped.

    Raises:
        ConfigurationError: *order* names an algorithm or a provider that isn't there.
    """

    def __init__(
        self,
        providers: Sequence[CryptoProvider],
        entropy: Entropy,
        *,
        order: Mapping[str, tuple[str, ...]] = _DEFAULT_ORDER,
        composites: Callable[[CryptoRegistry], CryptoProvider] = composite_provider,
    ) -> None:
        self._entropy = entropy
        self._providers = (*providers, composites(self))
        self.changes = Cell()
        self._ready: set[Algorithm] = set()
        self._slots: dict[Algorithm, Slot | None] = {}
        self._resolving = threading.RLock()
        self._stopping = threading.Lock()
        self._testing = threading.Lock()
        self._order = parse_order(order, self._providers)

    def generate(self, algorithm: Algorithm, *, agrees: bool = True) -> GeneratedKey:
        """
        Make a key and test that its halves belong together.

        Args:
            algorithm: Of the key.

            agrees: Whether it may ever agree on a secret, if its algorithm can.

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
                    algorithm, slot.provider, material, agrees=agrees
                )
            except SelfTestFailedError as failure:
                self.stop(algorithm, str(failure))
                raise
            self._check_fresh(algorithm, slot, material)
        return GeneratedKey(material, public_der)

    def generate_ephemeral(self, algorithm: Algorithm) -> KeyHandle:
        """
        Make a key for one agreement, which is never stored; errors as `generate`.

        The generator is watched as for every key. The pairwise consistency test is for
        keys that are kept: it costs several times what the agreement does.
        """
        slot = self._slot(algorithm)
        with slot.guard:
            material = slot.provider.generate(algorithm, self._entropy)
            self._check_fresh(algorithm, slot, material)
            return GuardedHandle(slot.provider.load(algorithm, material), slot.guard)

    def adopt(self, algorithm: Algorithm, material: bytes) -> GeneratedKey:
        """
        Check material from elsewhere fully, and that its halves belong together.

        Returns:
            The key in the form to keep.

        Raises:
            InvalidInputError: It is not a sound key of this algorithm, or its secret is
                one byte repeated.
            AlgorithmUnavailableError: No provider serves the algorithm.
            SelfTestFailedError: It is stopped.
        """
        slot = self._slot(algorithm)
        with slot.guard:
            try:
                slot.provider.load_foreign(algorithm, material)
            except InvalidInputError as refusal:
                raise explained(algorithm, refusal) from None
            kept = kept_form(algorithm, material)
            check_random(algorithm, kept)
            try:
                public_der = pairwise_consistency_test(algorithm, slot.provider, kept)
            except SelfTestFailedError:
                reason = "fails the pairwise consistency test"
                raise bad_material(algorithm, reason) from None
        return GeneratedKey(kept, public_der)

    def load(self, algorithm: Algorithm, material: bytes) -> GuardedHandle:
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

    def require(self, algorithm: Algorithm) -> None:
        """
        Return if the algorithm may be used; the first time, it is tested now.

        Raises:
            AlgorithmUnavailableError: No provider serves it.
            SelfTestFailedError: It is stopped.
            UnavailableError: It can't be tested now.
        """
        if algorithm not in self._ready:
            self._settle(algorithm)

    def is_ready(self, algorithm: Algorithm) -> bool:
        """Return whether the algorithm has passed its test and is not stopped."""
        return algorithm in self._ready

    def provider_of(self, algorithm: Algorithm) -> CryptoProvider:
        """
        Return the provider of an algorithm, even if it is stopped.

        Raises:
            AlgorithmUnavailableError: There is none.
        """
        return self._slot(algorithm).provider

    def statuses(self) -> tuple[AlgorithmStatus, ...]:
        """Return the status of each algorithm."""
        return tuple(map(self._status, Algorithm))

    def stopped(self) -> tuple[Algorithm, ...]:
        """Return the algorithms that failed a self-test."""
        slots = [(name, self._slots.get(name)) for name in Algorithm]
        return tuple(name for name, slot in slots if slot and slot.reason)

    def power_up_test(self) -> None:
        """
        Run the known-answer tests that are quick; what fails is stopped.

        Of an algorithm that signs slowly, a known signature is verified; it is tested
        wholly before its first use.
        """
        for algorithm in Algorithm:
            self.test_early(algorithm)

    def test_early(self, algorithm: Algorithm) -> None:
        """
        Run the quick part of an algorithm's known-answer test; a failure stops it.

        Raises:
            UnavailableError: It can't be tested now.
        """
        slot = self._find(algorithm)
        if slot is None:
            return
        if spec(algorithm).use_cost is Cost.QUICK:
            self._run_known_answers(algorithm, slot)
            return
        try:
            known_verification_test(algorithm, slot.provider)
        except SelfTestFailedError as failure:
            self.stop(algorithm, str(failure))

    def self_test(self, closing: threading.Event) -> tuple[SelfTestResult, ...]:
        """
        Run the known-answer tests of every algorithm that has a provider.

        One that is stopped stays so and is not tried again. After each the thread
        sleeps, so that others get their turn.

        Raises:
            OverloadedError: Another thread runs them already.
            UnavailableError: *closing* was set.
        """
        if not self._testing.acquire(blocking=False):
            raise OverloadedError("The self-tests are already running.")
        try:
            return tuple(self._tests(closing))
        finally:
            self._testing.release()

    def stop(self, algorithm: Algorithm, reason: str) -> None:
        """
        Stop an algorithm, and its composites, until the process starts again.

        Handles that were loaded before are stopped too. The first reason is kept.
        """
        reasons = {algorithm: reason} | {
            composite: f"its component {algorithm} is disabled: {reason}"
            for composite, row in ALGORITHMS.items()
            if algorithm in row.components and self._find(composite)
        }
        for stopped, why in reasons.items():
            slot = self._slot(stopped)
            with self._stopping:
                slot.reason = slot.reason or why
                self._ready.discard(stopped)
        self.changes.bump()

    def _check_fresh(self, algorithm: Algorithm, slot: Slot, material: bytes) -> None:
        """Compare a new key with the one before: equal keys mean a stuck generator."""
        digest = hashlib.sha256(material).digest()
        with slot.lock:
            repeated = digest == slot.last_made
            slot.last_made = digest
        if repeated:
            self.stop(algorithm, "The random generator produced the same key twice.")

    def _tests(self, closing: threading.Event) -> Iterator[SelfTestResult]:
        for algorithm in Algorithm:
            slot = self._find(algorithm)
            if slot is not None:
                began = time.monotonic()
                yield self._test(algorithm, slot)
                if closing.wait(min(time.monotonic() - began, _MOST_PAUSE_SECONDS)):
                    raise UnavailableError("The HSM is closed.")

    def _slot(self, algorithm: Algorithm) -> Slot:
        slot = self._find(algorithm)
        if slot is None:
            raise AlgorithmUnavailableError(
                f"No provider on this machine supports {algorithm}. "
                f"{self._hint(algorithm)}",
                algorithm=algorithm.value,
            )
        return slot

    def _find(self, algorithm: Algorithm) -> Slot | None:
        """Return the slot of an algorithm, or None if nobody serves it."""
        if algorithm not in self._slots:
            with self._resolving:
                if algorithm not in self._slots:
                    self._slots[algorithm] = self._resolve(algorithm)
        return self._slots[algorithm]

    def _resolve(self, algorithm: Algorithm) -> Slot | None:
        row = spec(algorithm)
        if not all(map(self._find, row.components)):
            return None
        usual = sorted(
            self._providers,
            key=lambda one: row.family not in getattr(one, "preferred", ()),
        )
        for provider in self._order.get(algorithm, usual):
            if algorithm in provider.algorithms():
                return Slot(provider, Guard(algorithm, self.require))
        return None

    def _settle(self, algorithm: Algorithm) -> None:
        slot = self._slot(algorithm)
        self._run_known_answers(algorithm, slot)
        if slot.reason:
            raise SelfTestFailedError(
                f"{algorithm} is disabled: {slot.reason}", algorithm=algorithm.value
            )

    def _test(self, algorithm: Algorithm, slot: Slot) -> SelfTestResult:
        self._run_known_answers(algorithm, slot, again=True)
        return SelfTestResult(
            algorithm=algorithm,
            provider=slot.provider.name,
            passed=not slot.reason,
            reason=slot.reason,
        )

    def _run_known_answers(
        self, algorithm: Algorithm, slot: Slot, *, again: bool = False
    ) -> None:
        """Test an algorithm that isn't stopped; a reason in its slot is the outcome."""
        with slot.lock:
            if slot.reason or (algorithm in self._ready and not again):
                return
            try:
                known_answer_test(algorithm, slot.provider)
            except SelfTestFailedError as failure:
                self.stop(algorithm, str(failure))
                return
            with self._stopping:
                if not slot.reason:
                    self._ready.add(algorithm)

    def _status(self, algorithm: Algorithm) -> AlgorithmStatus:
        slot = self._find(algorithm)
        if slot is None:
            return AlgorithmStatus(
                algorithm=algorithm, status="unavailable", hint=self._hint(algorithm)
            )
        return AlgorithmStatus(
            algorithm=algorithm,
            status="stopped" if slot.reason else "available",
            provider=slot.provider.name,
            provider_version=slot.provider.version,
        )

    def _hint(self, algorithm: Algorithm) -> str:
        """Return the hint for an algorithm without a provider."""
        if algorithm in self._order:
            names = ", ".join(provider.name for provider in self._order[algorithm])
            return f"The setting 'providers' allows only {names}."
        missing = [c for c in spec(algorithm).components if self._find(c) is None]
        return " ".join(map(what_to_install, missing or [algorithm]))


def default_registry(
    entropy: Entropy,
    order: Mapping[str, tuple[str, ...]] = _DEFAULT_ORDER,
    *,
    enabled: Collection[str] = (),
) -> CryptoRegistry:
    """
    Return a registry of the providers that this machine has.

    Args:
        entropy: Where new keys come from.

        order: See `CryptoRegistry`.

        enabled: Names of plug-ins that must be enabled, and are.

    Raises:
        ConfigurationError: *order* names an algorithm or a provider that isn't there.
    """
    providers = default_providers(chain(*order.values()), enabled=enabled)
    return CryptoRegistry(providers, entropy, order=order)
