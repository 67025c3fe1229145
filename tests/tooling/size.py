# SPDX-License-Identifier: MIT
"""
Size of the code: files and lines of every package, without docstrings and comments.

``nox -s size`` prints it. A line counts if a token of the program stands on it.
"""

from __future__ import annotations

import ast
import io
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from tests.built import DISTS
from tests.support import REPOSITORY

_NO_CODE: Final = frozenset(
    {
        tokenize.COMMENT,
        tokenize.DEDENT,
        tokenize.ENCODING,
        tokenize.ENDMARKER,
        tokenize.INDENT,
        tokenize.NEWLINE,
        tokenize.NL,
    }
)


class Lines(NamedTuple):
    """Lines of a module: of code, and of these, of imports and ``__all__``."""

    code: int
    imports: int


def lines_of(source: str) -> Lines:
    """Return the lines of code of a module, and its lines of imports."""
    tree = ast.parse(source)
    code: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _NO_CODE:
            code.update(range(token.start[0], token.end[0] + 1))
    imports: set[int] = set()
    for node in ast.walk(tree):
        span = range(getattr(node, "lineno", 1), (getattr(node, "end_lineno", 0)) + 1)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            code.difference_update(span)
        elif isinstance(node, ast.Import | ast.ImportFrom) or (
            isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
        ):
            imports.update(span)
    return Lines(len(code), len(code & imports))


def _rooms() -> Iterator[tuple[str, list[Path]]]:
    for dist in DISTS:
        top = REPOSITORY / "packages" / dist / "src" / dist.replace("-", "_")
        inner = top / "_internal"
        for folder in (top, inner) if inner.is_dir() else (top,):
            name = folder.relative_to(top.parent).as_posix()
            yield f"{name}/*.py", sorted(folder.glob("*.py"))
            for child in sorted(p for p in folder.iterdir() if p.is_dir()):
                if child != inner and (files := sorted(child.rglob("*.py"))):
                    yield f"{name}/{child.name}", files
        yield dist, sorted(top.rglob("*.py"))
    yield "tests", sorted((REPOSITORY / "tests").rglob("*.py"))


def main() -> None:
    """Print a table: files, lines of code, share of imports."""
    for name, files in _rooms():
        total = Counter[str]()
        for file in files:
            lines = lines_of(file.read_text("utf-8"))
            total.update(code=lines.code, imports=lines.imports)
        share = 100 * total["imports"] // (total["code"] or 1)
        sys.stdout.write(f"{name:38}{len(files):6}{total['code']:8}{share:5} %\n")


if __name__ == "__main__":
    main()
