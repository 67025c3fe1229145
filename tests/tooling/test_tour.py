# SPDX-License-Identifier: MIT
"""What the tour through the code points at is where it points."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Final

import pytest

from tests.support import REPOSITORY

_TOUR: Final = REPOSITORY / "docs" / "explanation" / "tour.md"
_LINK: Final = re.compile(r"\[`(?P<name>[\w.]+)`\]\((?P<path>[^)]+\.py)\)")
_LINKS: Final = sorted(
    {(found["path"], found["name"]) for found in _LINK.finditer(_TOUR.read_text())}
)


def names_in(source: str) -> set[str]:
    """Return the names of classes, functions and methods that a module defines."""
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    names = set()
    for node in ast.parse(source).body:
        if isinstance(node, kinds):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {
                f"{node.name}.{m.name}" for m in node.body if isinstance(m, kinds)
            }
    return names


def test_links() -> None:
    """The tour is a tour: it names many places, in all four distributions."""
    assert len(_LINKS) > 40
    for name in ("hsm-core", "hsm-client", "hsm-server", "hsm-cli"):
        assert any(f"packages/{name}/src/" in path for path, _ in _LINKS)


@pytest.mark.parametrize(("path", "name"), _LINKS)
def test_link(path: str, name: str) -> None:
    """A linked file is there, and defines what the link names."""
    target = Path(_TOUR.parent, path).resolve()
    assert target.is_relative_to(REPOSITORY)
    assert name in names_in(target.read_text())


def test_check_itself() -> None:
    """Names that a module only uses or imports are not found."""
    source = "from a import B\nclass C:\n    def d(self): B()\nasync def e(): ...\n"
    assert {"C", "C.d", "e"} == names_in(source)
