# SPDX-License-Identifier: MIT
"""Key loader: the registry's interface for computing with a fresh secret."""

from __future__ import annotations

from typing import Protocol

from hsm_core.algorithms import Algorithm
from hsm_core.protocols import KeyHandle


class KeyLoader(Protocol):
    """Where a secret becomes a guarded handle: the registry."""

    def load(self, algorithm: Algorithm, material: bytes) -> KeyHandle:
        """Load a symmetric key."""
        ...
