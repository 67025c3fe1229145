# SPDX-License-Identifier: MIT
"""The kill loop in its short form."""

from pathlib import Path

import pytest

from tests.faults.kill_loop import run
from tests.faults.rounds import failpoints


@pytest.mark.timeout(600)
def test_nothing_is_lost_or_half_done(tmp_path: Path) -> None:
    """
    A server killed at random and at every named point keeps all it promised.
    """
    kills, finales = 5 + 1 + len(failpoints()), 2

    tally = run(tmp_path, kills=5, seed="short")

    assert (kills + finales, 0) == (tally.passed, tally.failed)
