# SPDX-License-Identifier: MIT
"""Algorithms, their providers and self-tests."""

from __future__ import annotations

from typing import ClassVar

from hsm_core.algorithms import Algorithm, KeyUsage
from hsm_core.model import Record
from hsm_core.operations.base import Effect, Operation

__all__ = [
    "AlgorithmInfo",
    "AlgorithmList",
    "AlgorithmStatus",
    "ListAlgorithms",
    "SelfTest",
    "SelfTestReport",
    "SelfTestResult",
]


class SelfTestResult(Record, frozen=True, kw_only=True):
    """Outcome of one algorithm's known-answer tests."""

    algorithm: Algorithm
    provider: str
    passed: bool
    reason: str = ""


class SelfTestReport(Record, frozen=True, kw_only=True):
    """Outcome of all self-tests."""

    passed: bool
    results: tuple[SelfTestResult, ...]


class AlgorithmStatus(Record, frozen=True, kw_only=True):
    """
    Provider of an algorithm.

    Attributes:
        status: ``available``, ``unavailable`` or ``stopped`` (a self-test failed).
        hint: Package to install if it is unavailable.
    """

    algorithm: Algorithm
    status: str
    provider: str = ""
    provider_version: str = ""
    hint: str = ""


class AlgorithmInfo(Record, frozen=True, kw_only=True):
    """
    Algorithm with its parameters and provider.

    Sizes are in bytes; 0 if not applicable.

    Attributes:
        category: Security category 1, 2, 3 or 5, or 0.
        public_key_bytes: Raw public key.
        private_key_bytes: Private key as stored: a seed, or a symmetric key.
        signature_bytes: Maximum length of a signature.
        ciphertext_bytes: Encapsulation.
        draft: For a composite, the draft and revision that define it.
        status: ``available``, ``unavailable`` or ``stopped`` (a self-test failed).
        hint: Package to install if it is unavailable.
    """

    algorithm: Algorithm
    family: str
    standard: str
    category: int
    strength_bits: int
    usages: tuple[KeyUsage, ...]
    status: str
    public_key_bytes: int = 0
    private_key_bytes: int = 0
    signature_bytes: int = 0
    ciphertext_bytes: int = 0
    draft: str = ""
    provider: str = ""
    provider_version: str = ""
    hint: str = ""


class AlgorithmList(Record, frozen=True, kw_only=True):
    """Algorithm table."""

    items: tuple[AlgorithmInfo, ...]


class ListAlgorithms(Operation[AlgorithmList], frozen=True, kw_only=True):
    """Return all algorithms with their providers on this machine."""

    effect: ClassVar = Effect.READ
    while_locked: ClassVar = True


class SelfTest(Operation[SelfTestReport], frozen=True, kw_only=True):
    """Run all self-tests; an algorithm that fails is disabled."""

    effect: ClassVar = Effect.VIEW
    while_locked: ClassVar = True
