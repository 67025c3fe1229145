# SPDX-License-Identifier: MIT
"""
The table of algorithms: one row per algorithm, with its standard, sizes and usages.

Names are those of the standards. Look-up ignores case and accepts the short
spellings that users of the original know (``aes256gcm``, ``rsa2048``, ``p256`` …).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hsm_core.algorithms.names import (
    AESMode,
    Algorithm,
    CiphertextEncoding,
    Cost,
    DerivationFunction,
    Family,
    HashAlgorithm,
    KeyFormat,
    KeyUsage,
    SignatureEncoding,
    SignatureScheme,
    WrapMechanism,
)

if TYPE_CHECKING:
    from hsm_core.algorithms.specs import AlgorithmSpec
    from hsm_core.algorithms.spellings import parse_algorithm
    from hsm_core.algorithms.table import ALGORITHMS, spec

__all__ = [
    "ALGORITHMS",
    "AESMode",
    "Algorithm",
    "AlgorithmSpec",
    "CiphertextEncoding",
    "Cost",
    "DerivationFunction",
    "Family",
    "HashAlgorithm",
    "KeyFormat",
    "KeyUsage",
    "SignatureEncoding",
    "SignatureScheme",
    "WrapMechanism",
    "parse_algorithm",
    "spec",
]


if not TYPE_CHECKING:  # a misspelt name is an error to type checkers

    def __getattr__(name: str) -> object:
        """
        Load the table on first use (PEP 562); most commands need the names alone.

        Raises:
            AttributeError: There is no such name.
        """
        match name:
            case "ALGORITHMS" | "AlgorithmSpec" | "spec":
                from hsm_core.algorithms import table as source
            case "parse_algorithm":
                from hsm_core.algorithms import spellings as source
            case _:
                raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        found = globals()[name] = getattr(source, name)
        return found
