# SPDX-License-Identifier: MIT
"""Schema errors of msgspec, with line and field."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from hsm_core._policies.texts import Lines, Path, policy_fault
from hsm_core.errors import InvalidInputError

_WHERE: Final = re.compile(r" - at (`key` in )?`\$([^`]*)`\Z")
"""Suffix of msgspec's validation messages."""

_STEP: Final = re.compile(r"\.(\w+)|\[([0-9]+)\]|(\[\.\.\.\])")


def misfit(message: str, lines: Lines) -> InvalidInputError:
    """Return the error for a tree that does not fit the schema."""
    where = _WHERE.search(message)
    if where is None:
        return policy_fault(f"{message}.", (), _line_of((), lines))
    problem = message[: where.start()] + (", as a name" if where[1] else "")
    path = tuple(_steps(where[2]))
    return policy_fault(f"{problem}.", path, _line_of(path, lines))


def _steps(path: str) -> Iterator[str | int]:
    """Give the steps of a place that msgspec names, as far as it names it."""
    for name, number, unnamed in _STEP.findall(path):
        if unnamed:
            return  # It does not tell which of the names of a mapping it is.
        yield int(number) if number else name


def _line_of(path: Path, lines: Lines) -> int:
    while path and path not in lines:
        path = path[:-1]
    return lines.get(path, 0)
