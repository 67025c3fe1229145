# SPDX-License-Identifier: MIT
"""
Bulk reads and writes of audit rows: many rows per step of a statement.

At each step of a statement the interpreter's lock is given up, and has to be won again
from threads that compute, which takes milliseconds. All that time the database is held,
and nobody can append. So a step takes as many rows as it can.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final

from hsm_core._internal.audit.reasons import Reason, tampered
from hsm_core._internal.stores.sqlite.audit_rows import read_rows
from hsm_core._internal.stores.sqlite.database import Database

_BATCHES: Final = (64, 8, 1)
_BLOCK: Final = 256
_READ: Final = """
    SELECT count(*), min(seq), max(seq),
        CAST(group_concat(CAST(line AS TEXT), char(10)) AS BLOB)
    FROM (SELECT seq, line FROM records WHERE seq >= ? ORDER BY seq LIMIT ?)
"""


def _insertions(start: str, before: str) -> dict[int, str]:
    numbered = {
        rows: [f"({before}?2+{n},?{n + 3})" for n in range(rows)] for rows in _BATCHES
    }
    return {rows: start + ",".join(values) for rows, values in numbered.items()}


_RECORDS: Final = _insertions("INSERT INTO records VALUES ", "?1+")
_BASELINE: Final = _insertions("INSERT INTO baseline VALUES ", "?1,")


def insert_records(
    connection: sqlite3.Connection, first_seq: int, lines: Sequence[bytes]
) -> None:
    """Insert lines, each with its newline, as records from *first_seq* on."""
    _insert(connection, _RECORDS, first_seq, 0, [line[:-1] for line in lines])


def insert_baseline(
    connection: sqlite3.Connection, next_seq: int, number: int, lines: Sequence[bytes]
) -> None:
    """Insert lines of a baseline, the first being the one of this number."""
    _insert(connection, _BASELINE, next_seq, number, lines)


def _insert(
    connection: sqlite3.Connection,
    statements: dict[int, str],
    fixed: int,
    number: int,
    lines: Sequence[bytes],
) -> None:
    done = 0
    for rows, statement in statements.items():
        while len(lines) - done >= rows:
            values = (fixed, number + done, *lines[done : done + rows])
            connection.execute(statement, values)
            done += rows


def read_records(database: Database, start_seq: int, count: int) -> list[bytes]:
    """
    Return that many lines, without newline, a block at a time.

    Raises:
        AuditTamperedError: One of them is missing, or can't be a line.
        IntegrityError: The database is damaged.
        StoreUnavailableError: It can't be read.
    """
    lines: list[bytes] = []
    while len(lines) < count:
        seq, wanted = start_seq + len(lines), min(_BLOCK, count - len(lines))
        lines += _read_block(database, seq, wanted)
    return lines


def _read_block(database: Database, seq: int, wanted: int) -> list[bytes]:
    found = database.row(_READ, (seq, wanted))
    if found is not None and found[:3] == (wanted, seq, seq + wanted - 1):
        lines: list[bytes] = found[3].split(b"\n")
        if len(lines) == wanted:
            return lines
    return _read_singly(database, seq, wanted)


def _read_singly(database: Database, seq: int, wanted: int) -> list[bytes]:
    """Find out which row is not as it should be."""
    with database.reading() as connection:
        rows = list(read_rows(connection, seq, wanted))
    for position in range(wanted):
        if position >= len(rows) or rows[position][0] != seq + position:
            raise tampered(Reason.SHORTER, seq + position)
        if b"\n" in rows[position][1]:
            raise tampered(Reason.FRAMING, seq + position)
    return [line for _, line in rows]
