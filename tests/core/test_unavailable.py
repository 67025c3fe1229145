# SPDX-License-Identifier: MIT
"""Algorithms that nobody on this machine serves: clear errors, never a substitute."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hsm_core import errors
from hsm_core.algorithms import Algorithm
from hsm_core.factory import OpenHSM, open_hsm
from hsm_core.session import Session
from hsm_core.settings import KeyStoreKind, Settings
from tests.core.hsm_support import WRAP, require_algorithm, session_of

GONE = Algorithm.SLH_DSA_SHA2_128F
NOBODY: dict[str, tuple[str, ...]] = {GONE.value: ("pyca",)}
"""A setting by which an algorithm has a provider that doesn't serve it."""


def opened(folder: Path, providers: dict[str, tuple[str, ...]]) -> OpenHSM:
    """Open an HSM on disk with an order of providers."""
    settings = Settings(
        key_store=KeyStoreKind.FILESYSTEM,
        key_dir=folder / "keys",
        audit_log=folder / "audit.log",
        providers=providers,
    )
    return open_hsm(settings, master_key=b"\x01" * 32, hmac_key=b"\x02" * 32)


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    """Give an HSM that lacks an algorithm."""
    with opened(tmp_path, NOBODY) as gateway:
        yield session_of(gateway)


def test_nothing_is_made_of_it(session: Session) -> None:
    """Making or importing a key names the algorithm and what would help."""
    by = session.create_key("ML-KEM-768", usages=WRAP).key_id
    attempts: list[Callable[[], object]] = [
        lambda: session.create_key(GONE),
        lambda: session.import_key(GONE, by, bytes(8)),
    ]

    for attempt in attempts:
        with pytest.raises(
            errors.AlgorithmUnavailableError, match="providers"
        ) as caught:
            attempt()
        assert GONE.value == caught.value.facts["algorithm"]


def test_it_is_listed(session: Session) -> None:
    """The list of algorithms shows it as unavailable; the HSM is operational."""
    row = {found.algorithm: found for found in session.algorithms()}[GONE]

    assert "unavailable" == row.status
    assert row.hint
    assert "operational" == session.status().state


def test_keys_that_are_there(tmp_path: Path) -> None:
    """A key whose algorithm is gone can't be used, but described and destroyed."""
    with opened(tmp_path, {}) as gateway:
        session = session_of(gateway)
        require_algorithm(session, GONE)
        key = session.create_key(GONE).key_id
        signature = session.sign(key, b"m").signature

    with opened(tmp_path, NOBODY) as gateway:
        session = session_of(gateway)
        attempts: list[Callable[[], object]] = [
            lambda: session.sign(key, b"m"),
            lambda: session.verify(key, b"m", signature),
            lambda: session.rotate(key),
        ]
        for attempt in attempts:
            with pytest.raises(errors.AlgorithmUnavailableError):
                attempt()

        assert GONE is session.describe(key).algorithm
        assert session.public_key(key).der
        session.destroy(key)
