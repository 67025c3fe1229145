# SPDX-License-Identifier: MIT
"""What whoever computes with a fresh secret needs of the registry."""

from __future__ import annotations

from typing import Protocol

from hsm_core.algorithms import Algorithm
from hsm_core.protocols import KeyHandle


class KeyLoader(Protocol):
    """Where a secret becomes a guarded handle: the registry."""

    def load(self, algorithm: Algorithm, material: bytes) -> KeyHandle:
        """Load a symmetric key."""
        ...
