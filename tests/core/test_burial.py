# SPDX-License-Identifier: MIT
"""What is left of a key whose material is destroyed in part."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hsm_core._internal.keyring.documents import KeyDocument, Tombstone
from hsm_core._internal.keyring.versions import destroy_material, living
from hsm_core.model import KeyId, KeyState
from hsm_core.session import Session
from hsm_core.testing import caller, memory_hsm

ACTIVE, RETIRED, DESTROYED = KeyState.ACTIVE, KeyState.RETIRED, KeyState.DESTROYED


@pytest.fixture
def document() -> Iterator[KeyDocument]:
    """Give a key whose third and current version has the material of its first."""
    with memory_hsm() as gateway:
        session = Session(gateway.act_as(caller()))
        key_id = KeyId(session.create_key("ed25519").key_id)
        session.rotate(key_id)
        session.rollback(key_id, version=1)
        yield gateway._services.inventory.document(key_id)  # noqa: SLF001 (to look)


def states(document: KeyDocument) -> list[KeyState]:
    """Return the state of each version."""
    return [version.state for version in document.versions]


def test_the_rest_of_a_key_stays_as_it_was(document: KeyDocument) -> None:
    """Versions of other material keep state and blob; the current one is current."""
    second = document.versions[1]
    after = destroy_material(document, {second.material_id}, 7)

    assert [RETIRED, DESTROYED, ACTIVE] == states(after)
    assert (document.generation + 1, 3) == (after.generation, after.current)
    assert (Tombstone(material_id=second.material_id, destroyed_at=7),) == (
        after.tombstones
    )
    assert document.versions[0] == after.versions[0]
    assert "" == after.versions[1].blob_sha256


def test_material_goes_with_all_versions_that_have_it(document: KeyDocument) -> None:
    """If the current one goes, the newest that is left is current, retired as it is."""
    first = document.versions[0].material_id
    after = destroy_material(document, {first}, 7)

    assert [DESTROYED, RETIRED, DESTROYED] == states(after)
    assert 2 == after.current
    assert 1 == len(after.tombstones)
    assert {document.versions[1].material_id} == living(after)


def test_a_key_without_material_waits_for_nothing(document: KeyDocument) -> None:
    """Whatever else it had is gone: it is destroyed, and has a tombstone for each."""
    after = destroy_material(document, living(document), 7)

    assert after.is_destroyed
    assert (2, 0, 0) == (len(after.tombstones), after.destroy_at, after.current - 3)
    assert set() == living(after)
