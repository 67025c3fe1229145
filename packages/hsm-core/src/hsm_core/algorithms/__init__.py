# SPDX-License-Identifier: MIT
"""
The table of algorithms: one row per algorithm, with its standard, sizes and usages.

Names are those of the standards. Look-up ignores case and accepts the short
spellings that users of the original know (``aes256gcm``, ``rsa2048``, ``p256`` …).
"""

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
