# SPDX-License-Identifier: MIT
"""The tree of errors that the module opens with."""

from __future__ import annotations

import re

from hsm_core import errors
from hsm_core.errors import HSMError


def drawn_tree() -> set[tuple[str, str, str]]:
    """Return class, parent and builtin of every line of the drawing."""
    lines = re.findall(
        r"^    ([│├└─ ]*)(\w+Error)(?: \((\w+)\))?$", errors.__doc__ or "", re.M
    )
    path: list[str] = []
    rows = set()
    for indent, name, builtin in lines:
        depth = len(indent) // 4
        path[depth:] = [name]
        rows.add((name, path[depth - 1] if depth else "", builtin))
    return rows


def row_of(cls: type[HSMError]) -> tuple[str, str, str]:
    """Return class, parent and the builtin that a class adds to its parent."""
    parent, *others = (base.__name__ for base in cls.__bases__)
    return cls.__name__, parent if cls is not HSMError else "", "".join(others)


def test_the_drawing_is_the_tree() -> None:
    """The drawing has each public error once, under its parent, with its builtin."""
    expected = {row_of(cls) for cls in errors.error_classes().values()}

    assert expected == drawn_tree()
