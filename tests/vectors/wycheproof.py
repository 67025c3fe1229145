# SPDX-License-Identifier: MIT
"""Wycheproof's files."""

from __future__ import annotations

import gzip
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Group = dict[str, Any]
"""Tests with common parameters, as in the file; ``algorithm`` is the file's own."""

Test = dict[str, Any]
"""One test, as in the file."""


def read_groups(path: Path) -> list[Group]:
    """Return the test groups of a gzip-compressed file."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        content = json.load(file)
    return [
        group | {"algorithm": content.get("algorithm", "")}
        for group in content["testGroups"]
    ]


def octets(of: Mapping[str, Any], name: str) -> bytes:
    """Return the bytes of a name; none where there is no such name."""
    return bytes.fromhex(of.get(name) or "")
