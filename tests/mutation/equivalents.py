# SPDX-License-Identifier: MIT
"""Faults that make no difference, each with its reason."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any, Final

_LIST: Final = Path(__file__).with_name("equivalents.toml")


def is_equivalent(key: list[str]) -> bool:
    """Return whether a fault, as module, place, before and after, makes none."""
    return tuple(key) in _known()


@cache
def _known() -> frozenset[tuple[str, ...]]:
    with _LIST.open("rb") as file:
        listed: list[dict[str, Any]] = tomllib.load(file)["fault"]
    return frozenset(
        (entry["module"], entry["inside"], entry["before"], entry["after"])
        for entry in listed
    )
