# SPDX-License-Identifier: MIT
"""Plans give what the pipeline gives without them: answers, errors, records, counts."""

from __future__ import annotations

import os
from typing import Final

import pytest

from tests.core.two_ways import open_two_ways

REQUESTS: Final = int(os.environ.get("FERROHSM_TWO_WAYS", "1200"))
"""How many requests are compared in all; the session ``two_ways`` takes 100,000."""

SEEDS: Final = 3


@pytest.mark.parametrize("seed", range(SEEDS))
def test_both_ways_are_the_same(seed: int) -> None:
    """Whoever asks for what, in whatever state, and whatever has just changed."""
    with open_two_ways(seed) as ways:
        while ways.tried < REQUESTS // SEEDS:
            ways.step()
        # A tenth at least is by plan, or nothing was compared.
        assert ways.by_plan > ways.tried // 10
