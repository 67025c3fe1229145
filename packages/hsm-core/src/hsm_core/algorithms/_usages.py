# SPDX-License-Identifier: MIT
"""Sets of usages that several algorithms share."""

from __future__ import annotations

from typing import Final

from hsm_core.algorithms.names import KeyUsage

__all__ = [
    "CRYPT",
    "DERIVE",
    "ENCAPSULATE",
    "KEM",
    "SIGN",
    "WRAP",
]

SIGN: Final = frozenset({KeyUsage.SIGN, KeyUsage.VERIFY})
CRYPT: Final = frozenset({KeyUsage.ENCRYPT, KeyUsage.DECRYPT})
WRAP: Final = frozenset({KeyUsage.WRAP, KeyUsage.UNWRAP})
DERIVE: Final = frozenset({KeyUsage.DERIVE})
ENCAPSULATE: Final = frozenset({KeyUsage.ENCAPSULATE, KeyUsage.DECAPSULATE})

KEM: Final = ENCAPSULATE | CRYPT | WRAP
"""Usages of a key-encapsulation mechanism, which also seals messages and keys."""
