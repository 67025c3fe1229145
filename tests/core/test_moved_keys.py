# SPDX-License-Identifier: MIT
"""A key store that moves between machines with other providers of cryptography."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from hsm_core.algorithms import Algorithm
from hsm_core.errors import AlgorithmUnavailableError
from hsm_core.factory import open_hsm
from hsm_core.operations import Encapsulation
from hsm_core.session import Session
from hsm_core.settings import Settings
from tests.core.hsm_support import require_algorithm, session_of

KEM = Algorithm.ML_KEM_512
HMAC_KEY = bytes(range(32))


@contextmanager
def machine(folder: Path, provider: str) -> Iterator[Session]:
    """Open the store as a machine would on which one provider serves ML-KEM-512."""
    settings = Settings(
        key_dir=folder / "keys",
        audit_log=folder / "audit.log",
        providers={KEM.value: (provider,)},
    )
    with open_hsm(settings, master_key=bytes(32), hmac_key=HMAC_KEY) as hsm:
        session = session_of(hsm)
        require_algorithm(session, KEM)
        yield session


def made(session: Session) -> Encapsulation:
    """Return an encapsulation for a new key."""
    return session.encapsulate(session.create_key(KEM).key_id)


def opens(session: Session, made: Encapsulation) -> bool:
    """Return whether the key gives back what was encapsulated."""
    shared = session.decapsulate(made.key_id, made.ciphertext)
    return shared == made.shared_secret


def test_to_newer_system(tmp_path: Path) -> None:
    """
    Keys that pqcrypto made go on working when the system's OpenSSL serves.
    """
    with machine(tmp_path, "pqcrypto") as old:
        encapsulated = made(old)

    with machine(tmp_path, "libcrypto") as new:
        assert opens(new, encapsulated)


def test_to_older_system(tmp_path: Path) -> None:
    """
    A key that is kept as its seed is unavailable to pqcrypto, and not harmed by that.
    """
    with machine(tmp_path, "libcrypto") as new:
        encapsulated = made(new)

    with machine(tmp_path, "pqcrypto") as old:
        with pytest.raises(AlgorithmUnavailableError, match="stored as a seed"):
            opens(old, encapsulated)
        fresh = old.encapsulate(encapsulated.key_id)

    with machine(tmp_path, "libcrypto") as new:
        assert opens(new, encapsulated)
        assert opens(new, fresh)
