# SPDX-License-Identifier: MIT
"""Algorithm names: accepted spellings and error messages."""

from __future__ import annotations

from typing import Final

from hsm_core.algorithms.names import Algorithm
from hsm_core.algorithms.table import ALGORITHMS
from hsm_core.errors import UnknownAlgorithmError

__all__ = [
    "parse_algorithm",
]

_BY_NAME: Final = {
    name: row.algorithm
    for row in ALGORITHMS.values()
    for name in (row.algorithm.value.lower(), *row.aliases)
}

_NOT_OFFERED: Final = (
    *("MLKEM768-RSA2048-SHA3-256", "MLKEM768-RSA3072-SHA3-256"),
    *("MLKEM768-RSA4096-SHA3-256", "MLKEM768-ECDH-P384-SHA3-256"),
    *("MLKEM768-ECDH-brainpoolP256r1-SHA3-256", "MLKEM1024-RSA3072-SHA3-256"),
    *("MLKEM1024-ECDH-brainpoolP384r1-SHA3-256", "MLKEM1024-X448-SHA3-256"),
    *("MLKEM1024-ECDH-P521-SHA3-256", "MLDSA44-RSA2048-PSS-SHA256"),
    *("MLDSA44-RSA2048-PKCS15-SHA256", "MLDSA44-Ed25519-SHA512"),
    *("MLDSA65-RSA3072-PSS-SHA512", "MLDSA65-RSA3072-PKCS15-SHA512"),
    *("MLDSA65-RSA4096-PSS-SHA512", "MLDSA65-RSA4096-PKCS15-SHA512"),
    *("MLDSA65-ECDSA-P384-SHA512", "MLDSA65-ECDSA-brainpoolP256r1-SHA512"),
    *("MLDSA87-ECDSA-brainpoolP384r1-SHA512", "MLDSA87-Ed448-SHAKE256"),
    *("MLDSA87-RSA3072-PSS-SHA512", "MLDSA87-RSA4096-PSS-SHA512"),
    "MLDSA87-ECDSA-P521-SHA512",
)
"""Composites of the drafts that are not implemented."""

_NO_ML_DSA_135: Final = "FIPS 204 defines ML-DSA-44, ML-DSA-65 and ML-DSA-87 only"
_REASONS: Final = {
    "ml-dsa-135": _NO_ML_DSA_135,
    "mldsa135": _NO_ML_DSA_135,
    "ml-dsa135": _NO_ML_DSA_135,
    "hybridp256mlkem512": "the drafts define no composite with ML-KEM-512",
    **dict.fromkeys(map(str.lower, _NOT_OFFERED), "this composite is not supported"),
}
"""Reasons to reject names known from elsewhere."""


def parse_algorithm(name: str) -> Algorithm:
    """
    Return the algorithm that a name stands for, in any case and accepted spelling.

    Raises:
        UnknownAlgorithmError: No row has this name; the message lists those that may
            have been meant.

    Example:
        >>> parse_algorithm("secp256r1").value
        'EC-P256'
        >>> parse_algorithm("P-256 + ML-KEM-768").value
        'MLKEM768-ECDH-P256-SHA3-256'
    """
    folded = _folded(name)
    try:
        return _BY_NAME[folded]
    except KeyError:
        reason = _REASONS.get(folded, "unknown algorithm")
        raise UnknownAlgorithmError(
            f"algorithm {name[:64]!r}: {reason}. Use one of {_alike(folded)}.",
            field="algorithm",
        ) from None


def _folded(name: str) -> str:
    """Return a name without case, and without blanks round a plus sign."""
    return "+".join(part.strip() for part in name.lower().split("+"))


def _alike(folded: str) -> str:
    """Return the names of the same start, or all."""
    bare = "".join(filter(str.isalnum, folded))
    same = [
        algorithm
        for algorithm in ALGORITHMS
        if "".join(filter(str.isalnum, algorithm.lower()))[:5] == bare[:5]
    ]
    return ", ".join(same or ALGORITHMS)
