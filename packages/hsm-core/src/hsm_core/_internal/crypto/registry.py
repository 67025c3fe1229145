# SPDX-License-Identifier: MIT
"""
Crypto registry: generates and loads all keys.

Every new stored key passes its pairwise consistency test before use, and every handle
is guarded, so that a stopped algorithm returns no results.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from hsm_core._internal.crypto.formats import check_random, explained, kept_form
from hsm_core._internal.crypto.guard import GuardedHandle
from hsm_core._internal.crypto.providers import (
    PREFERRED,
    composite_provider,
    default_providers,
)
from hsm_core._internal.crypto.selftest import pairwise_consistency_test
from hsm_core._internal.crypto.served import ServedAlgorithms, Slot
from hsm_core.algorithms import Algorithm, Family
from hsm_core.errors import InvalidInputError, SelfTestFailedError
from hsm_core.protocols import CryptoProvider, Entropy, KeyHandle

_DEFAULT_ORDER: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType({})
_NOBODY: Final[Mapping[Family, tuple[str, ...]]] = MappingProxyType({})


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


class CryptoRegistry(ServedAlgorithms):
    """
    Registry of all cryptography: generate, load, test, stop.

    Args:
        providers: See `ServedAlgorithms`, as for *order* and *preferred*.

        entropy: Where new keys come from.

        order: Names of providers by name of algorithm.

        preferred: Names of providers that are asked first for a family.

        composites: Makes the provider of composites; components come from this
            registry, so that a stopped component stops its composites.

    Raises:
        ConfigurationError: *order* names an algorithm or a provider that isn't there.
    """

    def __init__(
        self,
        providers: Sequence[CryptoProvider],
        entropy: Entropy,
        *,
        order: Mapping[str, tuple[str, ...]] = _DEFAULT_ORDER,
        preferred: Mapping[Family, tuple[str, ...]] = _NOBODY,
        composites: Callable[[CryptoRegistry], CryptoProvider] = composite_provider,
    ) -> None:
        self._entropy = entropy
        super().__init__((*providers, composites(self)), order, preferred)

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
                raise InvalidInputError(
                    f"material of {algorithm} fails the pairwise consistency test.",
                    field="material",
                    algorithm=algorithm.value,
                ) from None
        return GeneratedKey(kept, public_der)

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

    def _check_fresh(self, algorithm: Algorithm, slot: Slot, material: bytes) -> None:
        """Compare a new key with the one before: equal keys mean a stuck generator."""
        digest = hashlib.sha256(material).digest()
        with slot.lock:
            repeated = digest == slot.last_made
            slot.last_made = digest
        if repeated:
            self.stop(algorithm, "The random generator produced the same key twice.")


def default_registry(
    entropy: Entropy,
    order: Mapping[str, tuple[str, ...]] = _DEFAULT_ORDER,
    *,
    enable_oqs: bool = False,
) -> CryptoRegistry:
    """
    Return a registry of the providers that this machine has.

    Args:
        entropy: Where new keys come from.

        order: See `CryptoRegistry`.

        enable_oqs: Whether liboqs is looked for.

    Raises:
        ConfigurationError: *order* names an algorithm or a provider that isn't there.
    """
    providers = default_providers(enable_oqs=enable_oqs)
    return CryptoRegistry(providers, entropy, order=order, preferred=PREFERRED)
