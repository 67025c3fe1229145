# SPDX-License-Identifier: MIT
"""What an event loop may compute itself: short payloads under quick algorithms."""

from __future__ import annotations

from typing import Final

from hsm_core._internal.documents import KeyDocument
from hsm_core._internal.inventory import Inventory
from hsm_core.algorithms import Algorithm, Cost, Family, spec

__all__ = ["INLINE_BYTES", "is_quick_use"]

INLINE_BYTES: Final = 64 * 1024
"""Longest payload that is processed at once."""


def is_quick_use(
    inventory: Inventory, key_id: str, size: int, *, private: bool
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
