# SPDX-License-Identifier: MIT
"""Honest histories of approvals and purges accuse nobody; the long form has more."""

from __future__ import annotations

from pathlib import Path

from tests.core.governance_histories import honest_governance

HISTORIES = 1


def test_honest_histories_raise_no_alarm(tmp_path: Path) -> None:
    """
    G6: over crashes, refusals, purges and clock steps, nothing is called changed.
    """
    told = honest_governance(tmp_path, HISTORIES)

    assert not told.startswith("0 crashes")
