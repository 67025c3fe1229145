# SPDX-License-Identifier: MIT
"""
Checks of plain English: docstrings, names of classes, words that the project avoids.

``nox -s lint`` runs them over the packages and the documentation.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parents[2]
_CLAUSE: Final = re.compile(
    r"(?:what|how|who|whoever|whose|whether|where|which|why)\b", re.IGNORECASE
)
_AVOIDED: Final = re.compile(
    r"\b(?:anew|for ever|whoever|serves nothing|(?:is|are) told|(?:is|are) asked after"
    r"|goes by|at all|a while)\b",
    re.IGNORECASE,
)
_TEXTS: Final = (
    "README.md",
    "docs/**/*.md",
    "examples/**/*.md",
    "packages/*/README.md",
    "packages/*/src/**/*.html",
    "packages/*/src/**/*.py",
)


def findings() -> Iterator[str]:
    """Yield a line for each finding: where it is, and what to write instead."""
    yield from _openings()
    yield from _repeated_classes()
    yield from _avoided_words()


def _openings() -> Iterator[str]:
    for path in _sources():
        text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
        if _CLAUSE.match(text):
            first = text.partition("\n")[0]
            yield f"{_name(path)}: begin with a noun, not with a clause: {first}"


def _repeated_classes() -> Iterator[str]:
    places: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path in _sources():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                package = path.relative_to(REPOSITORY / "packages").parts[0]
                places[package, node.name].append(_name(path))
    for (package, name), paths in places.items():
        if len(paths) > 1:
            yield f"{package}: class {name} in {', '.join(paths)}: name each apart"


def _avoided_words() -> Iterator[str]:
    for pattern in _TEXTS:
        for path in sorted(REPOSITORY.glob(pattern)):
            if "_build" in path.parts:
                continue
            for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
                if found := _AVOIDED.search(line):
                    yield f"{_name(path)}:{number}: {found[0]!r}: {line.strip()}"


def _sources() -> list[Path]:
    return sorted(REPOSITORY.glob("packages/*/src/**/*.py"))


def _name(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


if __name__ == "__main__":
    found = list(findings())
    sys.stdout.writelines(f"{line}\n" for line in found)
    sys.exit(bool(found))
