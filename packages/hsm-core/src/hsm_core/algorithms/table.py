# SPDX-License-Identifier: MIT
"""The table of algorithms."""

from __future__ import annotations

from typing import Final

from hsm_core.algorithms._composites import COMPOSITES
from hsm_core.algorithms._public_key import PUBLIC_KEY
from hsm_core.algorithms._quantum_safe import QUANTUM_SAFE
from hsm_core.algorithms._symmetric import CIPHERS, KEY_DERIVATIONS, KEY_WRAPS, MACS
from hsm_core.algorithms.names import Algorithm
from hsm_core.algorithms.specs import AlgorithmSpec

__all__ = [
    "ALGORITHMS",
    "spec",
]

_ROWS: Final = (
    *CIPHERS,
    *PUBLIC_KEY,
    *MACS,
    *KEY_WRAPS,
    *KEY_DERIVATIONS,
    *QUANTUM_SAFE,
    *COMPOSITES,
)

ALGORITHMS: Final = {row.algorithm: row for row in _ROWS}
"""Algorithm table, in display order."""


def spec(algorithm: Algorithm) -> AlgorithmSpec:
    """Return the row of an algorithm."""
    return ALGORITHMS[algorithm]
