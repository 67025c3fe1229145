# SPDX-License-Identifier: MIT
"""
Years of an HSM's life in seconds, each from a seed, judged after every step.

``FERROHSM_SIMULATION_SEEDS`` says how many (60 by default) and
``FERROHSM_SIMULATION_FROM`` which is the first; ``nox -s simulate`` runs as many as one
likes. A failure is seen again with ``python -m tests.simulation --seed N``.
"""

from __future__ import annotations

import os

import pytest

from tests.simulation.run import Life, simulate

SEEDS = int(os.environ.get("FERROHSM_SIMULATION_SEEDS", "60"))
FIRST = int(os.environ.get("FERROHSM_SIMULATION_FROM", "0"))
PARTS = 10


def part(number: int) -> range:
    """Return a tenth of the seeds."""
    bounds = [FIRST + SEEDS * n // PARTS for n in (number, number + 1)]
    return range(*bounds)


def told(seed: int) -> tuple[list[str], Life]:
    """Return the whole story of a seed, and what it came to."""
    story: list[str] = []
    life = simulate(seed, tell=story.append)
    return story, life


@pytest.mark.parametrize("number", range(PARTS))
def test_nothing_is_ever_otherwise_than_it_must_be(number: int) -> None:
    """Whatever people, clocks, disks and the power do, no invariant is broken."""
    for seed in part(number):
        life = simulate(seed)

        assert life.years >= 1


def test_a_seed_tells_the_same_story_twice() -> None:
    """So a failure can be seen again."""
    assert told(FIRST) == told(FIRST)


def test_the_power_goes_at_every_point() -> None:
    """Over some lives every step that leaves a disk in another state is reached."""
    reached: set[str] = set()
    for seed in range(40):
        reached |= simulate(seed).points.keys()
        if reached >= POINTS:
            break

    assert POINTS <= reached


POINTS = {
    *("mutation.after_intent", "mutation.after_store", "mutation.after_outcome"),
    *("store.before_blobs", "store.after_blobs", "store.before_document"),
    *("store.after_document", "store.after_remove", "store.before_abort"),
    *("audit.before_write", "audit.after_write", "audit.before_sync"),
    *("audit.after_sync", "recovery.before_record", "counters.before_put"),
    *("approvals.before_record", "approvals.after_record", "approval.reserved"),
    *("approval.after_intent", "approval.after_store", "approval.after_outcome"),
    *("approval.before_settling", "purge.after_schedule", "purge.after_mutation"),
    *("purge.after_ledger_intent", "purge.after_ledger_outcome"),
}
