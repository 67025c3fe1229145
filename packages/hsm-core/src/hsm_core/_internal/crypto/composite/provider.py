# SPDX-License-Identifier: MIT
"""
The provider of composites, which computes nothing itself but a hash.

A composite is one key with one OID. Nothing here takes or gives a half: both are made
together, loaded together and leave together, as the drafts demand.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hsm_core._internal.crypto.composite.components import Components
from hsm_core._internal.crypto.composite.kem import (
    CompositeKEMPrivateHandle,
    CompositeKEMPublicHandle,
)
from hsm_core._internal.crypto.composite.serialization import (
    join_private,
    split_private,
    split_public,
)
from hsm_core._internal.crypto.composite.signatures import (
    CompositeSignaturePrivateHandle,
    CompositeSignaturePublicHandle,
)
from hsm_core._internal.crypto.pyca.encoding import not_material, not_public_key
from hsm_core.algorithms import ALGORITHMS, Algorithm, spec
from hsm_core.errors import InvalidInputError
from hsm_core.protocols import Entropy, KeyHandle

_SERVED: Final = frozenset(
    algorithm for algorithm, row in ALGORITHMS.items() if row.is_hybrid
)
_VERSION: Final = ", ".join(sorted({spec(algorithm).draft for algorithm in _SERVED}))


class CompositeProvider:
    """
    `CryptoProvider` over the providers of the components.

    Args:
        components: Who serves these.
    """

    def __init__(self, components: Components) -> None:
        self._components = components

    @property
    def name(self) -> str:
        """Short name, used in settings."""
        return "composite"

    @property
    def version(self) -> str:
        """The drafts' names, with revision."""
        return _VERSION

    def algorithms(self) -> frozenset[Algorithm]:
        """Return every composite; each works as far as its components are served."""
        return _SERVED

    def generate(self, algorithm: Algorithm, entropy: Entropy, /) -> bytes:
        """Return fresh material; both halves are made anew by their own providers."""
        quantum_safe, traditional = spec(algorithm).components
        return join_private(
            algorithm,
            self._components.generate(quantum_safe).material,
            self._components.generate(traditional).material,
        )

    def load(self, algorithm: Algorithm, material: bytes, /) -> KeyHandle:
        """Load material that we made and have just authenticated."""
        return self._private(algorithm, material, self._components.load)

    def load_foreign(self, algorithm: Algorithm, material: bytes, /) -> KeyHandle:
        """Load material from elsewhere, both halves fully checked."""
        return self._private(algorithm, material, self._components.load_foreign)

    def load_public(self, algorithm: Algorithm, public_der: bytes, /) -> KeyHandle:
        """Load SubjectPublicKeyInfo, both halves fully checked."""
        first, second = split_public(algorithm, public_der)
        quantum_safe, traditional = spec(algorithm).components
        try:
            halves = (
                self._components.load_public(quantum_safe, first),
                self._components.load_public(traditional, second),
            )
        except InvalidInputError:
            raise not_public_key(algorithm) from None
        if spec(algorithm).is_kem:
            return CompositeKEMPublicHandle(algorithm, *halves, self._components)
        return CompositeSignaturePublicHandle(algorithm, *halves)

    def _private(
        self,
        algorithm: Algorithm,
        material: bytes,
        load: Callable[[Algorithm, bytes], KeyHandle],
    ) -> KeyHandle:
        first, second = split_private(algorithm, material)
        quantum_safe, traditional = spec(algorithm).components
        try:
            halves = load(quantum_safe, first), load(traditional, second)
        except InvalidInputError:
            raise not_material(algorithm) from None
        if spec(algorithm).is_kem:
            return CompositeKEMPrivateHandle(algorithm, *halves, self._components)
        return CompositeSignaturePrivateHandle(algorithm, *halves)
