# SPDX-License-Identifier: MIT
"""Reader of Wycheproof's files."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

__all__ = ["Group", "read_groups"]

Group = dict[str, Any]
"""A group of tests with common parameters, as it stands in the file."""


def read_groups(path: Path) -> list[Group]:
    """Return the test groups of a gzip-compressed file."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        groups: list[Group] = json.load(file)["testGroups"]
    return groups
