# SPDX-License-Identifier: MIT
"""Response files of NIST's form, as the package cryptography-vectors has them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import cryptography_vectors

Answers: TypeAlias = dict[str, dict[str, str]]
"""Known answers by algorithm and name; bytes are written as hex."""


def read_records(path: str, last: str) -> Iterator[dict[str, str]]:
    """Return the records of a response file, each ending with the name *last*."""
    record: dict[str, str] = {}
    with cryptography_vectors.open_vector_file(path, "r") as lines:
        for line in map(str.strip, lines):
            name, equals, value = line.strip("[]").partition("=")
            name = name.strip()
            if equals:
                record[name] = value.strip()
            elif line.startswith("["):
                record["section"] = name
            if name == last:
                yield dict(record)
