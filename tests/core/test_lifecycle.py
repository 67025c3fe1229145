# SPDX-License-Identifier: MIT
"""Versions of a key: states and moves, and what is left after destruction."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest

from hsm_core._internal.keyring.documents import KeyDocument, Tombstone
from hsm_core._internal.keyring.versions import (
    PERMITTED,
    REVOKED_BY_POLICY,
    check_move,
    destroy_material,
    living,
    permits,
)
from hsm_core.errors import KeyStateError
from hsm_core.model import KeyId, KeyState
from hsm_core.session import Session
from hsm_core.testing import caller, memory_hsm

STAGED, ACTIVE, RETIRED, SUSPENDED, REVOKED, SCHEDULED, DESTROYED = KeyState

# Written out a second time, from the text that describes the life cycle. One row per
# state before; columns are the states after in the order of the names above:
# "+" always, "b" only back to where it came from, "." never.
MATRIX = {
    STAGED: ".+..+++",
    ACTIVE: "..+++..",
    RETIRED: "....++.",
    SUSPENDED: ".+..+..",
    REVOKED: ".....+.",
    SCHEDULED: "bbbbb.+",
    DESTROYED: ".......",
}

# Operation by state in the same order: "+" works, "p" if the policy says so.
USES = {
    "Sign": ".+.....",
    "RawEncrypt": ".+.....",
    "RawDecrypt": ".++....",
    "RawSign": ".+.....",
    "RawVerify": ".++....",
    "DecryptPKCS1": ".++....",
    "Encrypt": ".+.....",
    "ComputeMac": ".+.....",
    "Verify": ".++.p..",
    "Decrypt": ".++....",
    "VerifyMac": ".++.p..",
    "GetPublicKey": "++++p..",
    "Encapsulate": ".+.....",
    "Seal": ".+.....",
    "GenerateDataKey": ".+.....",
    "wrap": ".+.....",
    "derive": ".+.....",
    "Decapsulate": ".++....",
    "Open": ".++....",
    "Rewrap": ".++....",
    "ExportKey": ".++....",
    "unwrap": ".++....",
}


def is_legal(before: KeyState, after: KeyState, came_from: KeyState | None) -> bool:
    """Ask the code whether a move is legal."""
    try:
        check_move(before, after, came_from=came_from)
    except KeyStateError:
        return False
    return True


class TestMoves:
    @pytest.mark.parametrize(("before", "after"), [*product(KeyState, KeyState)])
    def test_all_pairs(self, before: KeyState, after: KeyState) -> None:
        """
        Each of the 49 pairs, with each state it may have come from, is as written.
        """
        mark = MATRIX[before][list(KeyState).index(after)]
        origins = [None, *KeyState]
        expected = [mark == "+" or (mark == "b" and o is after) for o in origins]

        assert expected == [is_legal(before, after, origin) for origin in origins]

    def test_refusal_names_both_states(self) -> None:
        """
        A refused move tells a program what was there and what was wanted.
        """
        with pytest.raises(
            KeyStateError, match="revoked can't become active"
        ) as caught:
            check_move(REVOKED, ACTIVE)

        assert {"state": "revoked", "wanted": "active"} == caught.value.facts


class TestUses:
    @pytest.mark.parametrize(("kind", "state"), [*product(USES, KeyState)])
    @pytest.mark.parametrize("allowed", [False, True])
    def test_matrix(self, kind: str, state: KeyState, *, allowed: bool) -> None:
        """
        Each operation works in exactly the states that are written above.
        """
        mark = USES[kind][list(KeyState).index(state)]
        expected = mark == "+" or (mark == "p" and allowed)

        assert expected == permits(state, kind, revoked_allowed=allowed)

    @pytest.mark.parametrize("state", KeyState)
    def test_unknown_operation(self, state: KeyState) -> None:
        """
        An operation that no table names is not permitted in any state.
        """
        assert not permits(state, "Export", revoked_allowed=True)

    def test_tables(self) -> None:
        """
        No table names an operation that is not written above.
        """
        named = frozenset().union(*PERMITTED.values(), REVOKED_BY_POLICY)

        assert set(USES) == named


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
