# SPDX-License-Identifier: MIT
"""
Self-tests: known answers before first use, pairwise consistency of every new key.

Standard:
    FIPS 140-3 implementation guidance, 10.3.A (known answers) and 10.3.C (conditional
    tests).
"""

from hsm_core._internal.crypto.selftest.runner import (
    known_answer_test,
    known_verification_test,
    pairwise_consistency_test,
)

__all__ = [
    "known_answer_test",
    "known_verification_test",
    "pairwise_consistency_test",
]
