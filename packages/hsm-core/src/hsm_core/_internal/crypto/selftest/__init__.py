# SPDX-License-Identifier: MIT
"""
Self-tests: known answers before first use, pairwise consistency of every key kept.

Standard:
    FIPS 140-3 implementation guidance, 10.3.A (known answers); ISO/IEC 19790:2012,
    section 7.10.3.3 (pairwise consistency).
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
