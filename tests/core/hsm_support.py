# SPDX-License-Identifier: MIT
"""What the tests of operations share: one HSM in memory, and keys of it by name."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from hsm_core import errors, primitives
from hsm_core import operations as ops
from hsm_core.algorithms import ALGORITHMS, Algorithm, Cost, Family, KeyFormat, KeyUsage
from hsm_core.factory import OpenHSM
from hsm_core.model import AuditEvent, Role
from hsm_core.session import Session
from hsm_core.testing import caller, memory_hsm
from tests.support import require_service

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


@contextmanager
def memory_session(**given: Any) -> Iterator[Session]:
    """Open an HSM in memory for somebody who may do everything; see `memory_hsm`."""
    with memory_hsm(**given) as gateway:
        yield session_of(gateway)


def require_algorithm(session: Session, algorithm: Algorithm) -> None:
    """Skip the running test where nobody serves an algorithm."""
    found = {row.algorithm: row.status for row in session.status().algorithms}
    require_service(f"A provider of {algorithm}", found[algorithm] == "available")


def facts_of(caught: pytest.ExceptionInfo[errors.HSMError]) -> tuple[Any, ...]:
    """Return field, smallest and largest length of an error, as far as it has them."""
    facts = caught.value.facts
    return facts.get("field"), facts.get("minimum"), facts.get("maximum")


@contextmanager
def refused(error: type[errors.HSMError], field: str) -> Iterator[None]:
    """Expect an error about a field."""
    with pytest.raises(error) as caught:
        yield
    assert field == caught.value.facts["field"]


STRONG = [
    Algorithm.AES_256_KW,
    Algorithm.ML_KEM_1024,
    Algorithm.MLKEM1024_ECDH_P384_SHA3_256,
]
"""Wrapping keys that are strong enough for every key."""

SEEDED = [
    algorithm
    for algorithm, row in ALGORITHMS.items()
    if row.family in {Family.ML_DSA, Family.ML_KEM}
]
"""Algorithms whose private key is a seed."""


def wrapping_keys(session: Session) -> dict[Algorithm, str]:
    """Make wrapping keys, and return their ids by algorithm."""
    others = (
        Algorithm.AES_128_KW,
        Algorithm.RSA_2048,
        Algorithm.RSA_3072,
        Algorithm.ML_KEM_768,
    )
    return {
        kind: session.create_key(kind, usages=WRAP).key_id
        for kind in (*STRONG, *others)
    }


def wrap_for(session: Session, key_id: str, material: bytes) -> bytes:
    """Wrap material to the public half of a key of the HSM."""
    public = session.public_key(key_id)
    return primitives.wrap_for_import(public.algorithm, public.der, material)


class Outside:
    """Somebody who has a public wrapping key, and imports whatever they like."""

    def __init__(self, session: Session, key_id: str) -> None:
        self._session = session
        self._key_id = key_id

    def imports(
        self, algorithm: str, material: bytes, format: KeyFormat | None = None
    ) -> str:
        """Wrap material for the HSM, import it, and return the new key's id."""
        wrapped = wrap_for(self._session, self._key_id, material)
        made = self._session.import_key(
            algorithm, self._key_id, wrapped, format=format, exportable=True
        )
        return made.key_id


def recorded(gateway: OpenHSM, kind: str) -> list[AuditEvent]:
    """Return the records of a kind, newest first."""
    hsm = gateway.act_as(caller())
    return [e.event for e in hsm.execute(ops.ListAuditEvents(kind=(kind,))).items]
