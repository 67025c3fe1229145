# SPDX-License-Identifier: MIT
"""The page of standards is what the table of algorithms and the counts make."""

from __future__ import annotations

import json

from hsm_core.algorithms import ALGORITHMS
from tests.vectors.pages import PAGES, rendered
from tests.vectors.sets import COUNTS

PAGE = PAGES[1]


def test_page_is_from_the_counts() -> None:
    """Standards, clauses, providers and counts are not typed but made."""
    counts = json.loads(COUNTS.read_text("utf-8"))

    assert rendered(PAGE, counts) == PAGE.read_text("utf-8")


def test_every_algorithm_has_vectors() -> None:
    """Each algorithm of the table agreed with at least one published vector."""
    rows = [
        [cell.strip() for cell in line.split("|")[1:-1]]
        for line in PAGE.read_text("utf-8").splitlines()
        if line.startswith("| ")
    ][2:]

    assert [row.algorithm for row in ALGORITHMS.values()] == [row[0] for row in rows]
    assert all(row[4] for row in rows)
