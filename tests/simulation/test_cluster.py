# SPDX-License-Identifier: MIT
"""The protocol of a cluster keeps its promises, whatever happens in what order."""

import collections
import os

import pytest

from tests.simulation.cluster import ClusterLife
from tests.simulation.cluster_database import PROTECTIONS, ViolationError

SEEDS = int(os.environ.get("FERROHSM_CLUSTER_SEEDS", "60"))
MOST_SEEDS = 2000
FIRST_SEED = {"head": 240}
"""Where to begin, for what few seeds need."""


def test_no_seed_breaks_a_promise() -> None:
    """Pauses, lost answers, deaths, wrong clocks and lossy fail-overs break nothing."""
    for seed in range(SEEDS):
        try:
            ClusterLife(seed).live()
        except ViolationError as error:
            pytest.fail(f"seed {seed}: {error}")


@pytest.mark.parametrize("protection", PROTECTIONS)
def test_each_protection_is_needed(protection: str) -> None:
    """Without one of them, some seed breaks a promise."""
    first = FIRST_SEED.get(protection, 0)
    lives = (ClusterLife(first + n, protection) for n in range(MOST_SEEDS))
    with pytest.raises(ViolationError):
        collections.deque(map(ClusterLife.live, lives), maxlen=0)
