# SPDX-License-Identifier: MIT
"""The examples in docstrings print what they say."""

from __future__ import annotations

import doctest
from pkgutil import resolve_name

import pytest

from tests.support import REPOSITORY

_SOURCES = sorted(REPOSITORY.glob("packages/*/src"))
MODULES = [
    ".".join(file.relative_to(source).with_suffix("").parts)
    for source in _SOURCES
    for file in sorted(source.rglob("*.py"))
    if ">>> " in file.read_text("utf-8")
]


@pytest.mark.parametrize("name", MODULES)
def test_examples(name: str) -> None:
    """All examples of a module do; pytest's own collector would import all modules."""
    found = doctest.testmod(resolve_name(name))

    assert found.attempted > 0
    assert found.failed == 0
