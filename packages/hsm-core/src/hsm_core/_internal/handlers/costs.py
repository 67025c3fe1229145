# SPDX-License-Identifier: MIT
"""
Cost classes of operations.

An event loop computes short payloads under quick algorithms itself.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from hsm_core._internal.keyring.documents import KeyDocument
from hsm_core._internal.keyring.repository import KeyRepository
from hsm_core.algorithms import ALGORITHMS, Algorithm, Cost, Family, spec
from hsm_core.operations import Operation, SelfTest

INLINE_BYTES: Final = 64 * 1024
"""Maximum payload processed in one step, in bytes."""

_QUICK: Final = 1
_POOLED: Final = 4
_SLOW: Final = 50
_SELF_TEST: Final = sum(
    _POOLED if row.use_cost is Cost.QUICK else 3 * _SLOW for row in ALGORITHMS.values()
)
"""Cost of a slow algorithm's self-test: about three of its signatures."""


class _Rated(Protocol):
    """What a handler says of the time that an operation takes."""

    def is_quick(self, operation: Any, /) -> bool: ...

    def is_slow(self, operation: Any, /) -> bool: ...

    def is_quick_each(self, operation: Any, /) -> bool: ...


def weight_of(handler: _Rated, operation: Operation[Any]) -> int:
    """
    Return how many quick operations one is worth.

    A signature by ML-DSA-65 or P-256 is 1; what goes to a pool, as mutations and RSA's
    private keys do, is 4; what has threads of its own is 50. A batch is the sum of its
    items, and a self-test that of its tests.
    """
    if isinstance(operation, SelfTest):
        return _SELF_TEST
    items = len(getattr(operation, "items", None) or (operation,))
    if handler.is_slow(operation):
        return _SLOW * items
    return (_QUICK if handler.is_quick_each(operation) else _POOLED) * items


def is_quick_use(
    inventory: KeyRepository, key_id: str, size: int, *, private: bool
) -> bool:
    """
    Return whether a use of a key is sure to end soon.

    Args:
        inventory: Where the key is looked for, in memory alone.

        key_id: Id or name of the key; if it isn't known, reading it takes time.

        size: Length of the payload in bytes.

        private: Whether the private half of the key computes.
    """
    document = inventory.known(key_id)
    if document is None or size > INLINE_BYTES:
        return False
    return not private or _is_quick(document)


def _is_quick(document: KeyDocument) -> bool:
    row = spec(Algorithm(document.algorithm))
    return row.use_cost is Cost.QUICK and row.family is not Family.RSA
