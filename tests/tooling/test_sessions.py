# SPDX-License-Identifier: MIT
"""What tests/sessions.toml says of the tests that single sessions run."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.support import REPOSITORY

TESTS = REPOSITORY / "tests"
LISTED: dict[str, Any] = tomllib.loads((TESTS / "sessions.toml").read_text("utf-8"))


def patterns(table: Any) -> list[str]:
    """Return every pattern in a list, or in a table of lists."""
    if isinstance(table, dict):
        return [pattern for part in table.values() for pattern in patterns(part)]
    return list(table)


def required() -> set[str]:
    """Return the names of all that the four distributions require of others."""
    texts: list[str] = []
    for path in REPOSITORY.glob("packages/*/pyproject.toml"):
        project = tomllib.loads(path.read_text("utf-8"))["project"]
        texts += [*project["dependencies"]]
        texts += patterns(project.get("optional-dependencies", {}))
    names = {re.split(r"[\[<>=!~; ]", text, maxsplit=1)[0].lower() for text in texts}
    return names - set(LISTED["own"])


@pytest.mark.parametrize("name", sorted(LISTED))
def test_every_pattern_finds_tests(name: str) -> None:
    """
    No line of the file speaks of tests that are gone.
    """
    found = patterns(LISTED[name])

    assert found
    assert [] == [pattern for pattern in found if not any(TESTS.glob(pattern))]


def test_every_library_has_its_tests() -> None:
    """
    Whoever adds a library says which tests show its lowest version.
    """
    assert required() == LISTED["lowest"].keys()


@pytest.mark.parametrize("dist", sorted(LISTED["own"]))
def test_a_distribution_is_tested_by_its_own(dist: str) -> None:
    """
    What runs without the siblings lies in folders that need none of them.
    """
    folders = {Path(pattern).parts[0] for pattern in LISTED["isolated"][dist]}

    assert folders <= set(LISTED["own"][dist])
