# SPDX-License-Identifier: MIT
"""The kill loop in its short form; the session ``kill`` runs it, and all points."""

from pathlib import Path

import pytest

from tests.faults.kill_loop import run


@pytest.mark.parametrize("kind", ["filesystem", "sqlite"])
def test_nothing_is_lost_or_half_done(tmp_path: Path, kind: str) -> None:
    """
    A server killed at random moments keeps all it promised.
    """
    tally = run(tmp_path, kills=2, seed="short", kind=kind, with_points=False)

    assert (3, 0) == (tally.passed, tally.failed)
