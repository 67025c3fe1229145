# SPDX-License-Identifier: MIT
"""
Attacks on chained records by somebody who has not the key, whatever holds the records.

Each changes a list of lines in place and returns the place of the first bad one. They
are made on trails in files, of several segments, and in SQLite, and on the retention
ledger. The numbers are those of the threat model.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec

from hsm_core._internal.audit.facts import entry_of
from hsm_core._internal.audit.record import SEQ, decode_entry, leaf_hash

RecordAttack: TypeAlias = Callable[[list[bytes], int, list[bytes]], int]
"""Of the lines, a place among them, and the lines of another log of the same key."""


def seq_of(line: bytes) -> int:
    """Return the place that a record claims."""
    return int(entry_of(line)[SEQ], 16)


def changed(line: bytes, **fields: Any) -> bytes:
    """Return a record with other members and the MAC that it had."""
    facts, entry = line[: line.rfind(b"\n") + 1], entry_of(line)
    members = decode_entry(entry)
    assert members is not None
    return facts + msgspec.json.encode(msgspec.structs.replace(members, **fields))


def with_mac(line: bytes, mac: bytes) -> bytes:
    """Return a record with another MAC."""
    return b'%b"mac":"%b"}' % (line[:-73], mac.hex().encode())


def chained_anew(lines: list[bytes], start: int) -> list[bytes]:
    """Make every record from a place on follow from the one before it."""
    for at in range(start, len(lines)):
        lines[at] = changed(lines[at], prev=leaf_hash(lines[at - 1]))
    return lines


def edit(lines: list[bytes], at: int, foreign: list[bytes]) -> int:
    """Put another request into a record (1)."""
    lines[at] = changed(lines[at], request_id="mallory")
    return at


def edit_and_sign_without_key(lines: list[bytes], at: int, foreign: list[bytes]) -> int:
    """Edit a record and put a plain hash where its MAC was (2)."""
    line = changed(lines[at], kind="Verify")
    lines[at] = with_mac(line, hashlib.sha256(line).digest())
    return at


def edit_and_chain_anew(lines: list[bytes], at: int, foreign: list[bytes]) -> int:
    """Edit a record and make every later one follow from it (2)."""
    edit(lines, at, foreign)
    chained_anew(lines, at + 1)
    return at


def delete(lines: list[bytes], at: int, foreign: list[bytes]) -> int:
    """Delete a record in the middle (4)."""
    del lines[at]
    return at


def reorder(lines: list[bytes], at: int, foreign: list[bytes]) -> int:
    """Swap two records (5)."""
    lines[at], lines[at + 1] = lines[at + 1], lines[at]
    return at


def duplicate(lines: list[bytes], at: int, foreign: list[bytes]) -> int:
    """Repeat a record (5)."""
    lines.insert(at, lines[at - 1])
    return at


def replay(lines: list[bytes], at: int, foreign: list[bytes]) -> int:
    """Put an older record in the place of another (5)."""
    lines[at] = lines[0]
    return at


def splice(lines: list[bytes], at: int, foreign: list[bytes]) -> int:
    """Put a record of another log of the same key in the place of one (10)."""
    lines[at] = foreign[seq_of(lines[at])]
    return at


def strip_a_mac(lines: list[bytes], at: int, foreign: list[bytes]) -> int:
    """Take the MAC off a record (11)."""
    lines[at] = lines[at][:-74] + b"}"
    return at


def blank_a_mac(lines: list[bytes], at: int, foreign: list[bytes]) -> int:
    """Put zeros where a MAC was (11)."""
    lines[at] = with_mac(lines[at], bytes(32))
    return at


def add_a_blank_line(lines: list[bytes], at: int, foreign: list[bytes]) -> int:
    """Put an empty line between two records."""
    lines.insert(at, b"")
    return at


def add_a_carriage_return(lines: list[bytes], at: int, foreign: list[bytes]) -> int:
    """End a record as other systems end lines."""
    lines[at] += b"\r"
    return at


def add_a_name_again(lines: list[bytes], at: int, foreign: list[bytes]) -> int:
    """Give a member of a record twice, so that readers may differ."""
    lines[at] = lines[at].replace(b'"kind":', b'"kind":"no","kind":', 1)
    return at


def append_again(lines: list[bytes], at: int, foreign: list[bytes]) -> int:
    """Repeat the newest record (5)."""
    lines.append(lines[-1])
    return len(lines) - 1


def truncate(lines: list[bytes], at: int, foreign: list[bytes]) -> int:
    """Cut the newest record off (6)."""
    del lines[-1]
    return len(lines)


def truncate_more(lines: list[bytes], at: int, foreign: list[bytes]) -> int:
    """Cut all records off from a place on (6)."""
    del lines[at:]
    return at


def empty(lines: list[bytes], at: int, foreign: list[bytes]) -> int:
    """Cut all records off (8)."""
    lines.clear()
    return 0


def replace_by_another(lines: list[bytes], at: int, foreign: list[bytes]) -> int:
    """Put all records of another log of the same key in their place (10)."""
    lines[:] = foreign[: len(lines)]
    return 0


def remove_the_head(lines: list[bytes], at: int, foreign: list[bytes]) -> int:
    """Remove the oldest record without any record of it (12)."""
    del lines[0]
    return 0


IN_THE_MIDDLE: tuple[RecordAttack, ...] = (
    edit,
    edit_and_sign_without_key,
    delete,
    reorder,
    duplicate,
    replay,
    splice,
    strip_a_mac,
    blank_a_mac,
    add_a_blank_line,
    add_a_carriage_return,
    add_a_name_again,
)
"""What is done at one place, in whichever segment that is."""

ENDINGS: tuple[RecordAttack, ...] = (
    edit_and_chain_anew,
    append_again,
    truncate,
    truncate_more,
    empty,
    replace_by_another,
    remove_the_head,
)
"""What is about a log as a whole."""

REASONS: dict[RecordAttack, str] = {
    edit: "mac",
    edit_and_sign_without_key: "mac",
    edit_and_chain_anew: "mac",
    delete: "sequence",
    reorder: "sequence",
    duplicate: "sequence",
    replay: "sequence",
    splice: "mac",
    strip_a_mac: "framing",
    blank_a_mac: "mac",
    add_a_blank_line: "framing",
    add_a_carriage_return: "framing",
    add_a_name_again: "mac",
    append_again: "sequence",
    truncate: "shorter",
    truncate_more: "shorter",
    empty: "shorter",
    replace_by_another: "mac",
    remove_the_head: "sequence",
}
"""What is told of each attack on a log whose records lie in one place."""
