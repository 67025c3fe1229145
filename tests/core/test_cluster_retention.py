# SPDX-License-Identifier: MIT
"""Retention of a cluster: one node purges at a time, and all attest in one ledger."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hsm_core._internal.retention.shared import SharedRetentionSlot
from hsm_core.errors import AuditTamperedError, LedgerTamperedError, UnavailableError
from hsm_core.factory import OpenHSM, verify_cluster
from hsm_core.model import KeyState, Role
from hsm_core.protocols import Clock, KeyStore
from hsm_core.session import Session
from hsm_core.testing import caller
from tests.core.cluster_nodes import AUDIT_KEY, die_at, open_node, sql
from tests.core.forked import was_killed
from tests.core.node_support import eventually
from tests.core.ripe_material import MovedClock, adopt_policy, make_ripe

GONE = [KeyState.DESTROYED, KeyState.ACTIVE]


def opened(url: str, folder: Path, name: str, clock: Clock) -> OpenHSM:
    """Open a node with retention, and let it have the lease if it gets it."""
    policy = folder / "retention.yaml"
    policy.write_text("default_days: 1\n")
    hsm = open_node(url, folder, name, clock=clock, retention_config=policy)
    slot_of(hsm).step()
    return hsm


def slot_of(hsm: OpenHSM) -> SharedRetentionSlot:
    """Return what runs retention when the node has the lease."""
    slot: Any = hsm._retention  # noqa: SLF001 (as its thread does)
    assert isinstance(slot, SharedRetentionSlot)
    return slot


def sweep(hsm: OpenHSM, clock: MovedClock) -> None:
    """Wait for the lease, and sweep."""

    def has_lease() -> bool:
        slot_of(hsm).step()
        return hsm.retention is not None

    eventually(has_lease)
    adopt_policy(hsm, clock)


def ripe(url: str, folder: Path, *names: str) -> None:
    """Let a node make keys whose first version is to be purged."""
    make_ripe(lambda clock: opened(url, folder, "first", clock), names)


def states(hsm: OpenHSM, name: str) -> list[KeyState]:
    """Return the states of all versions of a key."""
    session = Session(hsm.act_as(caller(*Role)))
    return [version.state for version in session.versions(name)]


def purges(url: str) -> tuple[int, int, int]:
    """Verify logs and ledger; return how many purges were done, aborted, and open."""
    found = verify_cluster(url, AUDIT_KEY)
    assert found.ledger is not None
    return found.ledger.purges, found.ledger.aborted, found.ledger.unfinished


def purge_and_die(url: str, folder: Path, point: str) -> None:
    """Open a node, and die while it purges."""
    clock = MovedClock()
    hsm = opened(url, folder, "dead", clock)
    die_at(point, lambda: sweep(hsm, clock))


@pytest.mark.parametrize(
    "point",
    [
        "purge.after_ledger_intent",
        "purge.after_intent_anchor",
        "mutation.after_store",
        "purge.after_mutation",
        "purge.after_ledger_outcome",
    ],
)
def test_killed_in_a_purge(database: str, tmp_path: Path, point: str) -> None:
    """
    Another node ends the purge that a killed node had begun, and attests it once.
    """
    ripe(database, tmp_path, "box")
    assert was_killed(partial(purge_and_die, database, tmp_path, point))

    clock = MovedClock()
    with opened(database, tmp_path, "other", clock) as hsm:
        sweep(hsm, clock)

        assert GONE == states(hsm, "box")
    assert (1, 0, 0) == purges(database)


def test_two_nodes(database: str, tmp_path: Path) -> None:
    """
    Of two nodes one sweeps, and the other goes on when that one has left.
    """
    ripe(database, tmp_path, "one", "two")
    clock = MovedClock()
    with ExitStack() as stack:
        nodes = {
            name: stack.enter_context(opened(database, tmp_path, name, clock))
            for name in ("a", "b")
        }
        for _ in range(3):
            for hsm in nodes.values():
                slot_of(hsm).step()
        running = [name for name, hsm in nodes.items() if hsm.retention is not None]
        (name,) = running
        (other,) = nodes.keys() - running

        assert name == session(nodes[other]).retention().node
        assert "" == session(nodes[name]).retention().node
        sweep(nodes[name], clock)
        eventually(lambda: states(nodes[other], "one") == GONE)
        eventually(lambda: states(nodes[other], "two") == GONE)
        nodes[name].close()
        sweep(nodes[other], clock)
        report = session(nodes[other]).retention()
        assert report.ledger is not None
        assert not report.ledger.problem
        assert report.ledger.head_seq > 0
    assert (2, 0, 0) == purges(database)


def session(hsm: OpenHSM) -> Session:
    """Return a session of somebody who may do everything."""
    return Session(hsm.act_as(caller(*Role)))


FIRST = "seq = 1 AND log_id IN (SELECT log_id FROM logs WHERE node = '@ledger')"
ATTACKS = {
    "ledger removed": "DELETE FROM logs WHERE node = '@ledger'",
    "ledger hidden": "UPDATE logs SET node = 'c' WHERE node = '@ledger'",
    "record altered": "UPDATE records SET line = set_byte(line, 300, 65) WHERE #",
    "record removed": "DELETE FROM records WHERE #",
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_altered(database: str, tmp_path: Path, attack: str) -> None:
    """
    Verification finds a ledger that was altered, and no node purges by it.
    """
    ripe(database, tmp_path, "box")
    clock = MovedClock()
    with opened(database, tmp_path, "other", clock) as hsm:
        sweep(hsm, clock)
    sql(database, ATTACKS[attack].replace("#", FIRST))

    with pytest.raises((LedgerTamperedError, AuditTamperedError)):
        purges(database)
    with opened(database, tmp_path, "other", clock) as hsm:
        slot_of(hsm).step()
        if hsm.retention is not None:
            adopt_policy(hsm, clock)
        report = session(hsm).retention()
        assert report.ledger is not None
        assert report.ledger.problem


def test_head_altered_while_it_runs(database: str, tmp_path: Path) -> None:
    """
    A node opens its ledger again when the head mark is not what it has written.
    """
    clock = MovedClock()
    with opened(database, tmp_path, "a", clock) as hsm:
        sweep(hsm, clock)
        before = hsm.retention
        sql(database, "UPDATE logs SET head = 'altered' WHERE node = '@ledger'")

        def is_open_again() -> bool:
            slot_of(hsm).step()
            return hsm.retention not in {None, before}

        eventually(is_open_again)
    assert (0, 0, 0) == purges(database)


def test_damage_is_told_once(database: str, tmp_path: Path) -> None:
    """
    A node says once that the ledger is damaged, and once that it is well again.
    """
    ripe(database, tmp_path, "box")
    clock, told = MovedClock(), list[str]()
    with opened(database, tmp_path, "a", clock) as hsm:
        sweep(hsm, clock)
    turn_first(database, "+")
    with opened(database, tmp_path, "a", clock) as hsm:
        hsm.on_retention_change(told.append)
        for _ in range(3):
            slot_of(hsm).step()
        turn_first(database, "-")
        slot_of(hsm).step()
        assert hsm.retention is not None
    assert 2 == len(told)
    assert told[0]
    assert not told[1]


def turn_first(url: str, sign: str) -> None:
    """Alter the first intent in the ledger, or undo that."""
    turn = "UPDATE records SET line = set_byte(line, 300, get_byte(line, 300) @ 1)"
    sql(url, f"{turn.replace('@', sign)} WHERE {FIRST}")


def test_state_of_a_fenced_node(database: str, tmp_path: Path) -> None:
    """
    A process that was fenced does not write an older state over its successor's.
    """
    clock = MovedClock()
    hsm = opened(database, tmp_path, "a", clock)
    sweep(hsm, clock)
    sql(database, "UPDATE fence SET epoch = epoch + 1, instance = NULL")
    with opened(database, tmp_path, "b", clock) as other:
        with pytest.raises(UnavailableError):
            store_of(hsm).write_meta("retention", b"older")
        assert b"older" != store_of(other).read_meta("retention")
    with suppress(UnavailableError):
        hsm.close()


def store_of(hsm: OpenHSM) -> KeyStore:
    """Return the store of the keys, and of the state of retention."""
    services: Any = hsm._services  # noqa: SLF001 (as its sweeps do)
    store: KeyStore = services.inventory.store
    return store
