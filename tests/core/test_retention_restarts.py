# SPDX-License-Identifier: MIT
"""A sweep over hundreds of versions that restarts interrupt: each is purged once."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from hsm_core._internal.lib.failpoints import install
from hsm_core.model import KeyState
from tests.core.retention_support import DAY, World, events_of, keep_pipeline

__all__ = ["keep_pipeline"]

PLACES = ["purge.after_ledger_intent", "purge.after_mutation"]
KEYS, VERSIONS = 3, 71
PURGES = KEYS * (VERSIONS - 1)


def interrupt_at(world: World, place: str, count: int) -> None:
    """Let the process end when it comes to a place for the so-manieth time."""
    seen = 0

    def strike(name: str) -> None:
        nonlocal seen
        seen += name == place
        if seen == count:
            raise KeyboardInterrupt

    with install(strike), pytest.raises(KeyboardInterrupt):
        world.sweep()


def reopen(world: World) -> None:
    """Close it and open it again, without the thread that sweeps by itself."""
    world.close()
    world.open()
    world.hsm.worker.stop(10)


def test_each_purge_is_attested_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted between steps, after an intent and after a removal."""
    # A process ends here, and no machine: what was written is there afterwards.
    monkeypatch.setattr(os, "fsync", lambda _: None)
    world = World(tmp_path, memory=False, retention_max_purges=PURGES)
    world.hsm.worker.stop(10)
    keys = [world.old_key(VERSIONS) for _ in range(KEYS)]
    world.pass_time(31, every=15.5)
    world.people.grant()
    world.sweep()
    world.clock.advance(1.5 * DAY)
    while not world.session.retention().completed_total:
        world.retention.step()  # A part of a sweep, as the HSM's thread does it.
    reopen(world)
    for number, place in enumerate(PLACES, 20):
        before = len(world.attested())
        interrupt_at(world, place, number)
        assert before + number < len(world.attested()) < 2 * PURGES
        reopen(world)
    for _ in range(2):
        world.sweep()

    wanted = [KeyState.DESTROYED] * (VERSIONS - 1) + [KeyState.ACTIVE]
    assert [wanted] * KEYS == [world.states(key) for key in keys]
    check_ledger(world, keys)
    world.close()


def check_ledger(world: World, keys: list[str]) -> None:
    """Check that each version has one intent and one outcome that is well."""
    assert world.ledger_log is not None
    events = [e for e in events_of(world.ledger_log) if e.kind == "purge"]
    intents = {e.operation_id: e for e in events if e.phase == "intent"}
    ends = [e for e in events if e.phase == "outcome"]
    done = Counter(
        (intents[e.operation_id].key_id, intents[e.operation_id].version)
        for e in ends
        if e.code == "ok"
    )
    versions = [(key, n) for key in keys for n in range(1, VERSIONS)]

    assert Counter(versions) == done
    assert len(intents) == len(ends) == PURGES
    assert {"ok"} == {e.code for e in ends}
