# SPDX-License-Identifier: MIT
"""
Tables of an audit log in SQLite.

``records`` holds the very lines that a log in files has, by their sequence number.
``facts`` holds the facts lines, by the record that they stand before. ``head`` has one
row, the head mark, which every transaction that adds records writes too: so it always
names the last of them, and nothing can come after it. ``baseline`` holds the lines of
baselines, and ``pruned`` says which one counts and where the record of that prune is.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from typing import Final

from hsm_core._internal.audit.facts import SPAN, FactsTrack, Record
from hsm_core._internal.audit.head_mark import StoredHead
from hsm_core._internal.audit.reasons import Reason, tampered
from hsm_core._internal.audit.record import leaf_hash
from hsm_core._internal.stores.audit_rows import Block
from hsm_core._internal.stores.sqlite.database import Database
from hsm_core.errors import AuditUnavailableError, HSMError

APPLICATION_ID: Final = 0x46485441
"""Of the database's file: "FHTA" in ASCII."""

SCHEMA_VERSION: Final = 1

SCHEMA: Final = {
    "baseline": "CREATE TABLE baseline ("
    "next_seq INTEGER, number INTEGER, line BLOB NOT NULL, "
    "PRIMARY KEY (next_seq, number)) STRICT, WITHOUT ROWID",
    "facts": "CREATE TABLE facts ("
    "first_seq INTEGER PRIMARY KEY, line BLOB NOT NULL) STRICT",
    "head": "CREATE TABLE head ("
    "id INTEGER PRIMARY KEY CHECK (id = 0), content BLOB NOT NULL) STRICT",
    "pruned": "CREATE TABLE pruned ("
    "id INTEGER PRIMARY KEY CHECK (id = 0), next_seq INTEGER NOT NULL, "
    "record_seq INTEGER NOT NULL) STRICT",
    "records": "CREATE TABLE records ("
    "seq INTEGER PRIMARY KEY, line BLOB NOT NULL) STRICT",
}
"""The statement that makes each table; nothing else may be in the database."""

_DAMAGED: Final = frozenset(
    {
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_ERROR,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_TOOBIG,
    }
)
"""Results that no healthy database gives to a right statement."""

_ROWS: Final = "SELECT seq, line FROM records WHERE seq >= ? ORDER BY seq LIMIT ?"
_JOINED: Final = (
    "SELECT seq, records.line, facts.line FROM records "
    "LEFT JOIN facts ON first_seq = seq WHERE seq >= ? ORDER BY seq LIMIT 1"
)
_EARLIER: Final = (
    "SELECT first_seq, line FROM facts "
    "WHERE first_seq BETWEEN ? AND ? ORDER BY first_seq"
)
_ORPHAN: Final = (
    "SELECT min(first_seq) FROM facts LEFT JOIN records ON seq = first_seq "
    "WHERE first_seq >= ? AND seq IS NULL"
)
_FACTS: Final = (
    "SELECT line FROM facts WHERE first_seq BETWEEN ? AND ? "
    "AND substr(line, 11, 64) = ? ORDER BY first_seq DESC LIMIT 1"
)
_LINES: Final = "SELECT number, line FROM baseline WHERE next_seq = ? ORDER BY number"

_BATCHES: Final = (64, 8, 1)
_BLOCK: Final = 256
_READ: Final = """
    SELECT count(*), min(seq), max(seq),
        CAST(group_concat(CAST(line AS TEXT), char(10)) AS BLOB)
    FROM (SELECT seq, line FROM records WHERE seq >= ? ORDER BY seq LIMIT ?)
"""


def translated(error: sqlite3.Error, seq: int) -> HSMError:
    """
    Return the log's own error for one of SQLite.

    Args:
        error: What SQLite raised.

        seq: The record that was read, or the first of them.

    Returns:
        `AuditTamperedError` if the database is damaged, `AuditUnavailableError` if it
        can't be read now.
    """
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF
    if code in _DAMAGED or isinstance(error, sqlite3.DataError):
        return tampered(Reason.DATABASE, seq)
    return AuditUnavailableError()


def check_schema(connection: sqlite3.Connection) -> None:
    """
    Check that the tables are ours, and that there is no view, trigger or other index.

    Raises:
        AuditTamperedError: They are not.
    """
    found = dict(connection.execute("SELECT name, sql FROM sqlite_schema"))
    if found != SCHEMA:
        raise tampered(Reason.DATABASE, 0)


class SqliteTables:
    """
    `LogTables` of a database that holds one log.

    Args:
        connection: Open on it; cursors end before a method does, except in `rows`.
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def heads(self) -> list[tuple[int, object]]:
        """Return up to two rows of the head mark."""
        statement = "SELECT id, content FROM head LIMIT 2"
        return self._connection.execute(statement).fetchall()

    def first(self) -> int | None:
        """Return the lowest sequence number of a record; None if there is none."""
        statement = "SELECT min(seq) FROM records"
        found: int | None = self._connection.execute(statement).fetchone()[0]
        return found

    def last(self) -> int | None:
        """Return the highest sequence number of a record; None if there is none."""
        statement = "SELECT max(seq) FROM records"
        found: int | None = self._connection.execute(statement).fetchone()[0]
        return found

    def rows(
        self, start_seq: int, limit: int = -1, /
    ) -> Generator[tuple[int, bytes], None, None]:
        """
        Yield records in order of seq; see `LogTables.rows`.

        Raises:
            AuditTamperedError: A row holds no bytes.
        """
        with closing(self._connection.execute(_ROWS, (start_seq, limit))) as rows:
            for seq, line in rows:
                if not isinstance(line, bytes):
                    raise tampered(Reason.FRAMING, seq)
                yield seq, line

    def joined(self, seq: int, /) -> tuple[int, object, bytes | None] | None:
        """
        Return the first record from *seq* on; see `LogTables.joined`.

        Raises:
            HSMError: See `translated`.
        """
        try:
            found: tuple[int, object, bytes | None] | None = self._connection.execute(
                _JOINED, (seq,)
            ).fetchone()
        except sqlite3.Error as error:
            raise translated(error, seq) from error
        return found

    def block(self, seq: int, count: int, /) -> Block | None:
        """Return records from *seq* on; None if they can't be read so."""
        try:
            row = self._connection.execute(_READ, (seq, count)).fetchone()
            size, first, last, text = row
            facts = self.facts(seq, seq + size - 1)
        except sqlite3.Error:
            return None
        return Block(size, first, last, text, [before for before, _ in facts])

    def facts(self, first: int, last: int, /) -> list[tuple[int, bytes]]:
        """Return the facts lines before records *first* to *last*, in order."""
        return self._connection.execute(_EARLIER, (first, last)).fetchall()

    def facts_at(self, seq: int, /) -> bytes:
        """
        Return the facts line before a record that has one.

        Raises:
            HSMError: See `translated`.
        """
        try:
            found = self._connection.execute(_EARLIER, (seq, seq)).fetchone()
        except sqlite3.Error as error:
            raise translated(error, seq) from error
        line: bytes = found[1]
        return line

    def orphan(self, start_seq: int, /) -> int | None:
        """Return the first facts line from *start_seq* on that serves no record."""
        row = self._connection.execute(_ORPHAN, (start_seq,)).fetchone()
        found: int | None = row[0]
        return found

    def pruned(self) -> tuple[int, int] | None:
        """Return the first record that was kept, and the record of that prune."""
        statement = "SELECT next_seq, record_seq FROM pruned"
        found: tuple[int, int] | None = self._connection.execute(statement).fetchone()
        return found

    def baseline(self, next_seq: int, /) -> Iterator[tuple[int, object]]:
        """Return the lines of a baseline in order, each with its number."""
        return self._connection.execute(_LINES, (next_seq,))


def _insertions(start: str, before: str) -> dict[int, str]:
    numbered = {
        rows: [f"({before}?2+{n},?{n + 3})" for n in range(rows)] for rows in _BATCHES
    }
    return {rows: start + ",".join(values) for rows, values in numbered.items()}


_RECORDS: Final = _insertions("INSERT INTO records VALUES ", "?1+")
_BASELINE: Final = _insertions("INSERT INTO baseline VALUES ", "?1,")


def insert_records(
    connection: sqlite3.Connection,
    first_seq: int,
    records: Sequence[Record],
    facts: FactsTrack,
) -> None:
    """
    Insert records from *first_seq* on.

    Args:
        connection: Open on the log.

        first_seq: Sequence number of the first one.

        records: The next ones.

        facts: Facts lines that the database has.
    """
    due = facts.due(records, first_seq)
    if due:
        connection.executemany("INSERT INTO facts VALUES (?, ?)", due)
        facts.note(due)
    entries = [entry[:-1] for _, entry in records]
    _insert(connection, _RECORDS, first_seq, 0, entries)


def find_facts(database: Database, digest: bytes, seq: int) -> bytes:
    """
    Return the facts line that a record names, without newline, or nothing.

    Raises:
        IntegrityError: The database is damaged.
        StoreUnavailableError: It can't be read.
    """
    found = database.row(_FACTS, (seq - SPAN + 1, seq, digest))
    return found[0] if found is not None else b""


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
        rows = list(SqliteTables(connection).rows(seq, wanted))
    for position in range(wanted):
        if position >= len(rows) or rows[position][0] != seq + position:
            raise tampered(Reason.SHORTER, seq + position)
        if b"\n" in rows[position][1]:
            raise tampered(Reason.FRAMING, seq + position)
    return [line for _, line in rows]


def check_beside(
    connection: sqlite3.Connection, beside: StoredHead, head: StoredHead
) -> None:
    """
    Check that a database is not older than the mark beside it, and holds its record.

    Args:
        connection: Open on the log.

        beside: The mark beside it.

        head: The mark in it.

    Raises:
        AuditTamperedError: It is older, or another log, or has other records.
        sqlite3.Error: It can't be read.
    """
    if beside.log_id != head.log_id:
        raise tampered(Reason.LOG_ID, 0)
    seq = beside.mark.seq
    if seq > head.mark.seq:
        raise tampered(Reason.SHORTER, head.mark.seq + 1)
    for found, line in SqliteTables(connection).rows(seq, 1):
        # If it was pruned, the baseline tells what was there.
        if found == seq and leaf_hash(line) != beside.mark.leaf_hash:
            raise tampered(Reason.MARK, seq)
