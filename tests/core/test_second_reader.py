# SPDX-License-Identifier: MIT
"""The published vectors of the audit log, and a reader written from its page alone."""

from __future__ import annotations

import ast
import json
import sys
from pathlib import Path

import pytest

from tests.core import second_reader
from tests.core.log_vectors import HMAC_KEY, PUBLISHED, Vector, document, vectors
from tests.core.second_reader import BadLogError, read_files
from tests.core.second_reader.keys import aes256_block

VECTORS = vectors()


def put(vector: Vector, folder: Path) -> Path:
    """Write the files of a vector."""
    path = folder / "audit.log"
    path.write_bytes(vector.content)
    path.with_name("audit.log.head").write_bytes(vector.mark)
    return path


def test_the_published_vectors_are_those_of_the_generator() -> None:
    """``python -m tests.core.log_vectors`` writes them."""
    assert document() == PUBLISHED.read_text(encoding="utf-8")


def test_the_published_vectors_have_all_that_a_reader_needs() -> None:
    """Lines and slot as published are those of the files."""
    for vector, told in zip(
        VECTORS, json.loads(PUBLISHED.read_text("utf-8"))["logs"], strict=True
    ):
        slot, at = bytes.fromhex(told["slot"]), told["slot_offset"]

        assert "".join(line + "\n" for line in told["lines"]).encode() == vector.content
        assert slot == vector.mark[at : at + 218]


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
def test_a_vector(vector: Vector, tmp_path: Path) -> None:
    """The second reader reads what is right, and names what is wrong."""
    path = put(vector, tmp_path)
    if vector.wrong is not None:
        with pytest.raises(BadLogError) as caught:
            read_files(path, HMAC_KEY)
        assert vector.wrong == (caught.value.seq, caught.value.reason)
        return
    log = read_files(path, HMAC_KEY)

    assert (vector.scribe.next_seq - 1, vector.scribe.prev) == log.head
    assert log.entries == read_files(path, None).entries


def test_facts_are_joined_with_the_numbers_of_each_entry(tmp_path: Path) -> None:
    """What entries have in common is read as if each said it itself."""
    log = read_files(put(VECTORS[0], tmp_path), HMAC_KEY)
    signed = [entry for entry in log.entries if "bind" in entry.members]

    assert [1024, 1024, 0] == [e.parts["parameters"]["message_bytes"] for e in signed]
    assert {"zoë"} == {entry.parts["who"]["principal"] for entry in signed}


def test_the_second_reader_uses_nothing_of_the_first() -> None:
    """It imports the standard library and itself."""
    found = set()
    assert second_reader.__file__ is not None
    for file in Path(second_reader.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                found.add(str(node.module))
    others = {name for name in found if name.partition(".")[0] not in _STANDARD}

    assert {name for name in others if "second_reader" in name} == others


_STANDARD = sys.stdlib_module_names


def test_its_block_cipher() -> None:
    """AES-256 as in FIPS 197, appendix C.3."""
    block = bytes.fromhex("00112233445566778899aabbccddeeff")

    made = aes256_block(bytes(range(32)), block)

    assert "8ea2b7ca516745bfeafc49904b496089" == made.hex()
