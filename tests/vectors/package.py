# SPDX-License-Identifier: MIT
"""Response files of the package cryptography-vectors, block by block."""

from __future__ import annotations

from collections.abc import Iterator

import cryptography_vectors

Block = dict[str, str]
"""Names and values of one test, with those that stand above it in the file."""


def read_blocks(path: str, required: str) -> Iterator[Block]:
    """
    Return the tests of a file.

    A test is a block of lines with the name *required*; other blocks and lines in
    brackets hold for all that follow. A line FAIL becomes a name without value.
    """
    context: Block = {}
    block: Block = {}
    with cryptography_vectors.open_vector_file(path, "r") as lines:
        for line in (*map(str.strip, lines), ""):
            if line.startswith("["):
                context |= _pair(line.strip("[]"))
            elif line and not line.startswith("#"):
                block |= _pair(line)
            elif not line and block:
                if required in block:
                    yield context | block
                else:
                    context |= block
                block = {}


def field_bytes(block: Block, name: str) -> bytes:
    """Return the bytes of a value: hex, or text in quotes."""
    value = block.get(name, "")
    if value.startswith('"'):
        return value.strip('"').encode()
    return bytes.fromhex(value)


def _pair(line: str) -> Block:
    name, equals, value = line.partition("=")
    if equals:
        return {name.strip(): value.strip()}
    return {"section": name.strip()} if "," in name or "-" in name else {name: ""}
