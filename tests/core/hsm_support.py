# SPDX-License-Identifier: MIT
"""What the tests of operations share: one HSM in memory, and keys of it by name."""

from __future__ import annotations

from typing import Any

import pytest

from hsm_core import errors
from hsm_core.algorithms import ALGORITHMS, Algorithm, Cost, KeyUsage
from hsm_core.model import Role
from hsm_core.session import Session
from hsm_core.testing import caller
from tests.support import require_service

__all__ = [
    "KEMS",
    "NEW_SIGNERS",
    "WRAP",
    "facts_of",
    "require_algorithm",
    "session_of",
]

WRAP = (KeyUsage.WRAP, KeyUsage.UNWRAP)
KEMS = [algorithm for algorithm, row in ALGORITHMS.items() if row.is_kem]
NEW_SIGNERS = [
    algorithm
    for algorithm, row in ALGORITHMS.items()
    if row.max_context_bytes
    and (row.use_cost is Cost.QUICK or algorithm is Algorithm.SLH_DSA_SHA2_128F)
]
"""Algorithms that sign with a context; of the slow ones, the least slow."""


def session_of(gateway: Any, *roles: Role) -> Session:
    """Return a session of somebody who may do everything, or what *roles* may."""
    return Session(gateway.act_as(caller(*roles)))


def require_algorithm(session: Session, algorithm: Algorithm) -> None:
    """Skip the running test where nobody serves an algorithm."""
    found = {row.algorithm: row.status for row in session.status().algorithms}
    require_service(f"A provider of {algorithm}", found[algorithm] == "available")


def facts_of(caught: pytest.ExceptionInfo[errors.HSMError]) -> tuple[Any, ...]:
    """Return field, smallest and largest length of an error, as far as it has them."""
    facts = caught.value.facts
    return facts.get("field"), facts.get("minimum"), facts.get("maximum")
