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

from hsm_core._internal.audit.baseline import Baseline, check_baseline
from hsm_core._internal.audit.chain import Follower
from hsm_core._internal.audit.facts import (
    SPAN,
    FactsTrack,
    entry_of,
    facts_line_of,
    named_by,
)
from hsm_core._internal.audit.head_mark import HeadCodec, HeadMark, StoredHead
from hsm_core._internal.audit.reasons import Reason, tampered
from hsm_core._internal.audit.record import RecordCodec, decode_entry, leaf_hash
from hsm_core._internal.audit.uses import NO_USE, Line, lines_of, uses_from
from hsm_core._internal.audit.verify import UseFollower, check_end
from hsm_core._internal.stores.sqlite.database import Database
from hsm_core.errors import (
    AuditTamperedError,
    AuditUnavailableError,
    HSMError,
)

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

HEADER_BYTES: Final = 64
"""Of the content of ``head``: log id and key check value; one slot follows."""

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
_LINES_AT_ONCE: Final = 128
"""Rows that are verified together: short enough for the limit of SQLite's values."""

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


def head_row(codec: HeadCodec, counter: int, mark: HeadMark) -> bytes:
    """Return the content of ``head``."""
    return codec.header + codec.slot(counter, mark)[1]


def read_head(connection: sqlite3.Connection, hmac_key: bytes) -> StoredHead:
    """
    Authenticate the head mark and return it.

    Raises:
        WrongAuditKeyError: It was written with another HMAC key.
        AuditTamperedError: It is missing, or was changed by other means than ours.
    """
    rows = connection.execute("SELECT id, content FROM head LIMIT 2").fetchall()
    if not rows:
        raise tampered(Reason.HEAD_MISSING, 0)
    content = rows[0][1]
    if len(rows) > 1 or rows[0][0] != 0 or not isinstance(content, bytes):
        raise tampered(Reason.HEAD_DAMAGED, 0)
    header, slot = content[:HEADER_BYTES], content[HEADER_BYTES:]
    return HeadCodec.authenticate(header, {-1: slot}, hmac_key)


def read_rows(
    connection: sqlite3.Connection, start_seq: int, limit: int = -1
) -> Generator[tuple[int, bytes], None, None]:
    """
    Give records in order of seq, each with its row's number.

    Args:
        connection: Open on a log.

        start_seq: Rows before it are left out.

        limit: How many at most; a negative number gives all.

    Raises:
        AuditTamperedError: A row holds no bytes.
        sqlite3.Error: They can't be read.
    """
    with closing(connection.execute(_ROWS, (start_seq, limit))) as rows:
        for seq, line in rows:
            if not isinstance(line, bytes):
                raise tampered(Reason.FRAMING, seq)
            yield seq, line


class StoredRows:
    """
    A `StoredLog` in a database.

    Every transaction that adds records writes the head mark too, so the last record is
    the one that the mark names, and there is no torn tail.

    Args:
        connection: Open on the audit log.

        hmac_key: Key of the audit log; None leaves head mark and MACs unchecked.

    Attributes:
        facts: Facts lines up to the record that was read last.
        has_leftovers: Records before the first one that counts are still there, because
            their removal was interrupted.

    Raises:
        WrongAuditKeyError: The key is not the log's.
        AuditTamperedError: Tables, head mark or baseline were altered.
        sqlite3.Error: They can't be read.
    """

    torn_bytes = 0
    follow_uses: UseFollower | None = None

    def __init__(self, connection: sqlite3.Connection, hmac_key: bytes | None) -> None:
        check_schema(connection)
        self._connection = connection
        self.facts = FactsTrack(keeps_lines=False)
        self.head = None if hmac_key is None else read_head(connection, hmac_key)
        log_id = self.head.log_id if self.head else ""
        self.baseline = read_baseline(connection, log_id, hmac_key)
        covered = self.baseline.header.next_seq if self.baseline else 0
        oldest = first_row(connection)
        self.has_leftovers = oldest is not None and oldest < covered
        self.first_seq = max(covered if oldest is None else oldest, covered)

    def lines(self, start_seq: int, /) -> Generator[bytes, None, None]:
        """
        Yield the entries from a record on; see `StoredLog.lines`.

        Raises:
            AuditTamperedError: A row is missing or no line, or the database is damaged.
            AuditUnavailableError: They can't be read now.
        """
        seq = first = start_seq
        lines: list[Line] = []
        self.facts = read_earlier(self._connection, seq)
        while True:
            if self.follow_uses is not None:
                if seq == first + len(lines):
                    first, lines = seq, self._block(seq)
                followed = self.follow_uses(uses_from(lines, seq - first), self.facts)
                seq += followed
                if followed:
                    continue
            try:
                row = self._connection.execute(_JOINED, (seq,)).fetchone()
            except sqlite3.Error as error:
                raise translated(error, seq) from error
            if row is None:
                return
            found, entry, facts = row
            if not isinstance(entry, bytes):
                raise tampered(Reason.FRAMING, found)
            if found != seq:
                raise tampered(Reason.SEQUENCE, seq)
            if facts is not None:
                self.facts.take(facts, seq)
            yield entry
            seq += 1

    def joined(self, entry: bytes, /) -> bytes:
        """
        Return the record of the entry that was yielded last; see `StoredLog.joined`.

        Facts lines are read again: those of one segment fit in memory, and those of a
        database may not.
        """
        digest = named_by(entry)
        if not digest:
            return entry
        first = self.facts.first_of(digest)
        try:
            found = self._connection.execute(_EARLIER, (first, first)).fetchone()
        except sqlite3.Error as error:
            raise translated(error, first) from error
        return b"%b\n%b" % (found[1], entry)

    def _block(self, seq: int) -> list[Line]:
        """Return rows from *seq* on as lines; those to be read by themselves empty."""
        execute = self._connection.execute
        try:
            count, first, last, text = execute(_READ, (seq, _LINES_AT_ONCE)).fetchone()
            facts = execute(_EARLIER, (seq, seq + count - 1)).fetchall()
        except sqlite3.Error:
            # The row that can't be read is found when all are read by themselves.
            return [NO_USE] * _LINES_AT_ONCE
        lines = lines_of(text + b"\n") if count else []
        if len(lines) != count or (first, last) != (seq, seq + count - 1):
            lines = [NO_USE] * max(count, 1)
        for before, _ in facts:
            lines[before - seq] = NO_USE
        return lines

    def anchors(self, before: int, /) -> Iterator[tuple[int, bytes]]:
        """
        Yield the line before the first one that must be read.

        Raises:
            sqlite3.Error: It can't be read.
        """
        if before > self.first_seq:
            for seq, line in read_rows(self._connection, before - 1, 1):
                if seq == before - 1:
                    yield seq, line

    def judge_end(self, follower: Follower, error: AuditTamperedError | None) -> None:
        """
        Require that the log ends with the record that the head mark names.

        Raises:
            AuditTamperedError: It does not.
        """
        mark = follower.mark
        if mark is not None:
            check_end(follower, None if follower.seq > mark.seq else error)
            if follower.seq > mark.seq:
                raise tampered(Reason.AFTER_MARK, mark.seq + 1)
        if error is not None:
            raise error
        orphan = self._connection.execute(_ORPHAN, (self.first_seq,)).fetchone()[0]
        if orphan is not None:
            raise tampered(Reason.FACTS, orphan)

    def has_grown(self, _follower: Follower, /) -> bool:
        """Return False: nobody else writes the log."""
        return False


def read_baseline(
    connection: sqlite3.Connection, log_id: str, hmac_key: bytes | None
) -> Baseline | None:
    """
    Return what is kept of pruned records, checked, with the record of the prune.

    Args:
        connection: Open on a log.

        log_id: The log; empty takes its own word.

        hmac_key: None leaves MACs unchecked.

    Raises:
        AuditTamperedError: It was changed, or no record tells of the prune.
    """
    found = connection.execute("SELECT next_seq, record_seq FROM pruned").fetchone()
    if found is None:
        return None
    next_seq, record_seq = found
    lines = baseline_lines(connection, next_seq)
    baseline = check_baseline(lines, log_id=log_id, hmac_key=hmac_key)
    if baseline.header.next_seq != next_seq:
        raise tampered(Reason.BASELINE, 0)
    codec = RecordCodec(baseline.header.log_id, hmac_key)
    for seq, line in read_rows(connection, record_seq, 1):
        if seq == record_seq and codec.is_record(line):
            entry = decode_entry(line)
            if entry is not None and entry.detail == baseline.detail:
                return baseline
    raise tampered(Reason.PRUNED, 0)


def baseline_lines(connection: sqlite3.Connection, next_seq: int) -> Iterator[bytes]:
    """
    Return the lines of one baseline, each with its newline.

    Raises:
        AuditTamperedError: A row holds no bytes.
    """
    for number, (place, line) in enumerate(connection.execute(_LINES, (next_seq,))):
        if place != number or not isinstance(line, bytes):
            raise tampered(Reason.BASELINE, 0)
        yield line


def first_row(connection: sqlite3.Connection) -> int | None:
    """
    Return the lowest number of a record, or None if there is none.

    Raises:
        AuditTamperedError: It is below 0.
    """
    found: int | None = connection.execute("SELECT min(seq) FROM records").fetchone()[0]
    if found is not None and found < 0:
        raise tampered(Reason.SEQUENCE, 0)
    return found


def last_row(connection: sqlite3.Connection) -> int | None:
    """Return the highest number of a record, or None if there is none."""
    found: int | None = connection.execute("SELECT max(seq) FROM records").fetchone()[0]
    return found


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
    records: Sequence[bytes],
    facts: FactsTrack,
) -> None:
    """
    Insert records, each with its newline, from *first_seq* on.

    Args:
        connection: Open on the log.

        first_seq: Sequence number of the first one.

        records: Facts line and entry of each.

        facts: Facts lines that the database has.
    """
    entries = []
    for seq, record in enumerate(records, first_seq):
        trimmed = facts.trimmed(record, seq)[:-1]
        line, entry = facts_line_of(trimmed), entry_of(trimmed)
        if line:
            connection.execute("INSERT INTO facts VALUES (?, ?)", (seq, line))
        entries.append(entry)
    _insert(connection, _RECORDS, first_seq, 0, entries)


def read_earlier(connection: sqlite3.Connection, seq: int) -> FactsTrack:
    """
    Return the facts lines before a record that may serve it or later ones.

    Args:
        connection: Connection to the database.

        seq: Sequence number of the record.

    Raises:
        sqlite3.Error: They can't be read.
    """
    track = FactsTrack(keeps_lines=False)
    for first, line in connection.execute(_EARLIER, (seq - SPAN + 1, seq - 1)):
        track.take_earlier(line, first)
    return track


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
        rows = list(read_rows(connection, seq, wanted))
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
    for found, line in read_rows(connection, seq, 1):
        # If it was pruned, the baseline tells what was there.
        if found == seq and leaf_hash(line) != beside.mark.leaf_hash:
            raise tampered(Reason.MARK, seq)
