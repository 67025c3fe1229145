# SPDX-License-Identifier: MIT
"""Documents in memory: what listings and uses see of a change and of a tampered key."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hsm_core.factory import OpenHSM
from hsm_core.model import Integrity, KeyId, KeyInfo, KeyState
from hsm_core.operations import VerifyStore
from hsm_core.session import Session
from hsm_core.testing import caller
from tests.core.changed_stores import DATA, Data, session_on
from tests.core.test_scrubber import wait_for_scrub


@pytest.fixture(params=DATA, ids=lambda kind: kind.kind.value)
def data(request: pytest.FixtureRequest, tmp_path: Path) -> Data:
    """Give the place of an HSM with one key."""
    made: Data = request.param(tmp_path / "data")
    made.folder.mkdir(mode=0o700)
    with made.open() as gateway:
        session_on(gateway).create_key("ed25519", name="key")
    return made


def listed(session: Session) -> KeyInfo:
    """Return the key as a listing shows it."""
    (key,) = session.keys()
    return key


def meddle(gateway: OpenHSM, change: Callable[[], object]) -> None:
    """Let something happen once, when a document was read and is not yet looked at."""
    store: Any = gateway._services.inventory.store  # noqa: SLF001 (to meddle)
    inner, left = store._inner, [change]  # noqa: SLF001
    real = inner.get

    def get(key_id: KeyId) -> object:
        found = real(key_id)
        if left:
            left.pop()()
        return found

    inner.get = get


def test_tampering_is_found_by_what_looks_at_the_disk(data: Data) -> None:
    """A listing shows the authentic document until the scrubber finds the other."""
    with data.open() as gateway:
        wait_for_scrub(gateway)
        session = session_on(gateway)
        before = listed(session)
        path = data.folder / "keys" / "keys" / before.key_id / "key.json"
        if path.exists():
            path.write_bytes(path.read_bytes().replace(b'"active"', b'"staged"'))
        else:
            database = gateway._services.inventory.store._inner.database  # type: ignore[attr-defined] # noqa: SLF001 (it is locked)
            with database.transaction() as connection:
                connection.execute("UPDATE documents SET document = x'00'")
        from_memory = listed(session)
        gateway.act_as(caller()).execute(VerifyStore())
        after = listed(session)
        described = session.describe(before.key_id)

    assert before == from_memory
    assert (Integrity.OK, KeyState.ACTIVE) == (before.integrity, before.state)
    assert [Integrity.TAMPERED] * 2 == [after.integrity, described.integrity]


def test_a_late_reader_does_not_bring_an_older_document_back(data: Data) -> None:
    """A listing that read a document before a revocation leaves no trace of it."""
    with data.open() as gateway:
        session = session_on(gateway)
        meddle(gateway, lambda: session.revoke("key"))
        session.keys()
        after = listed(session)

    assert KeyState.REVOKED == after.state


def test_each_change_shows_in_the_next_listing(data: Data) -> None:
    """Rows are made once for each generation of a key."""
    with data.open() as gateway:
        session = session_on(gateway)
        seen = [listed(session)]
        changes: tuple[Callable[[], object], ...] = (
            lambda: session.rotate("key"),
            lambda: session.suspend("key", reason="test"),
            lambda: session.resume("key"),
            lambda: session.update("key", description="other"),
        )
        for change in changes:
            change()
            seen += [listed(session), listed(session)]

    assert [1, 2, 2, 3, 3, 4, 4, 5, 5] == [key.generation for key in seen]
    assert ["active", "suspended", "active"] == [key.state for key in seen[1:7:2]]
    assert "other" == seen[-1].description
