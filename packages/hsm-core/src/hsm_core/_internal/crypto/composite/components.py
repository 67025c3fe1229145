# SPDX-License-Identifier: MIT
"""Component providers of composite keys."""

from __future__ import annotations

from typing import Protocol

from hsm_core.algorithms import Algorithm
from hsm_core.protocols import KeyHandle


class MadeKey(Protocol):
    """A new key of a component."""

    @property
    def material(self) -> bytes:
        """PKCS#8, DER."""
        ...


class Components(Protocol):
    """
    Whoever serves the components, through guarded handles: the registry.

    So a component that a self-test has stopped gives nothing to a composite either.
    """

    def generate(self, algorithm: Algorithm, /) -> MadeKey:
        """Make a key and test that its halves belong together."""
        ...

    def generate_ephemeral(self, algorithm: Algorithm, /) -> KeyHandle:
        """Make a key for one agreement, which is never stored."""
        ...

    def load(self, algorithm: Algorithm, material: bytes, /) -> KeyHandle:
        """Load material that we made and have just authenticated."""
        ...

    def load_foreign(self, algorithm: Algorithm, material: bytes, /) -> KeyHandle:
        """Load material from elsewhere, fully checked."""
        ...

    def load_public(self, algorithm: Algorithm, der: bytes, /) -> KeyHandle:
        """Load SubjectPublicKeyInfo, fully checked."""
        ...
