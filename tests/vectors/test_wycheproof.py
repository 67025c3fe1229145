# SPDX-License-Identifier: MIT
"""Wycheproof's tests agree with hsm-core, but for the refusals that are published."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support import REPOSITORY
from tests.vectors.wycheproof_runs import PREFIXES, run_file

COUNT = re.compile(r"(?:^|, )(\d+) ")
PAGE = REPOSITORY / "docs/reference/vectors.md"


def published_rows() -> dict[str, str]:
    """Return the rows of the published table by the file's name."""
    lines = PAGE.read_text("utf-8").splitlines()
    return {line.split("`")[1]: line for line in lines if line.startswith("| `")}


ROWS = published_rows()


@pytest.mark.parametrize("name", ROWS)
def test_file_is_as_published(
    name: str,
    vectors: Callable[[str], Path],
    record_property: Callable[[str, str], None],
) -> None:
    """
    No test of a file disagrees, and as many are refused as the page says.
    """
    tally = run_file(vectors("wycheproof") / f"{name}.json.gz")
    record_property("wycheproof", tally.row(name))

    assert [] == tally.wrong
    assert ROWS[name] == tally.row(name)


def test_every_file_is_published(vectors: Callable[[str], Path]) -> None:
    """
    Each file of a family that hsm-core has stands in the published table.
    """
    files = (path.name for path in vectors("wycheproof").glob("*.json.gz"))

    assert set(ROWS) == {
        name.removesuffix(".json.gz") for name in files if name.startswith(PREFIXES)
    }


def test_totals_are_as_published() -> None:
    """
    The totals in the page's text are the sums of its table.
    """
    cells = [[cell.strip() for cell in row.split("|")[2:6]] for row in ROWS.values()]
    tests, agreed = (sum(int(row[column]) for row in cells) for column in (0, 1))
    either, refused = (
        sum(int(number) for row in cells for number in COUNT.findall(row[column]))
        for column in (2, 3)
    )
    sentence = (
        f"of {tests} tests in {len(ROWS)} files, {agreed} agree, {either} may be "
        f"answered either way, {refused} are refused"
    )

    assert tests == agreed + either + refused
    assert sentence in " ".join(PAGE.read_text("utf-8").split())
