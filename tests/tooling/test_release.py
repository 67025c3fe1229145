# SPDX-License-Identifier: MIT
"""What is promised of the distributions as they are released."""

import re
import tomllib
from typing import Any

import pytest

from tests.support import REPOSITORY

DISTRIBUTIONS = ("hsm-core", "hsm-client", "hsm-server", "hsm-cli")
CORE_REQUIRES_AT_MOST = 6


def project(dist: str) -> dict[str, Any]:
    """Return what the table ``project`` of a distribution says."""
    text = (REPOSITORY / "packages" / dist / "pyproject.toml").read_text("utf-8")
    found: dict[str, Any] = tomllib.loads(text)["project"]
    return found


def requirements(dist: str) -> set[str]:
    """Return the names of what a distribution requires, extras aside."""
    names = (re.match(r"[\w.-]+", line) for line in project(dist)["dependencies"])
    return {name[0] for name in names if name}


def test_core_requires_little() -> None:
    """
    The core requires six other distributions at most.
    """
    assert 1 <= len(requirements("hsm-core")) <= CORE_REQUIRES_AT_MOST


@pytest.mark.parametrize("dist", DISTRIBUTIONS)
def test_page_names_what_is_required(dist: str) -> None:
    """
    The page of the distributions names all that each one requires, and nothing else.
    """
    page = (REPOSITORY / "docs/reference/distributions.md").read_text("utf-8")
    row = re.search(rf"^\| `{dist}` \|.*\| (?P<names>[^|]+) \|$", page, re.MULTILINE)
    assert row is not None
    assert set(row["names"].split(", ")) == requirements(dist)


def test_security_page_is_whole() -> None:
    """
    Who has found a vulnerability learns whom to tell, what, and what happens then.
    """
    text = (REPOSITORY / "SECURITY.md").read_text("utf-8")
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    wanted = ["Reporting", "What happens then", "What counts", "Supported versions"]
    assert [heading for heading in headings if heading in wanted] == wanted
