# SPDX-License-Identifier: MIT
"""Statements over the tables of audit logs in PostgreSQL."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from hsm_core._internal.audit.facts import SPAN, FactsCache
from hsm_core._internal.audit.medium import GroupCondition
from hsm_core._internal.audit.reasons import Reason, tampered
from hsm_core._internal.stores.audit_rows import Block
from hsm_core._internal.stores.postgresql.connection import postgres_errors, run
from hsm_core.errors import (
    AuditTamperedError,
    AuditUnavailableError,
    IntegrityError,
    UnavailableError,
)

if TYPE_CHECKING:
    from hsm_core._internal.stores.postgresql.database import ClusterDatabase
    from hsm_core._internal.stores.postgresql.driver import ServerConnection

# A row that is longer than a record can be (65,535 bytes) must not fill the memory.
_ROWS: Final = (
    "SELECT seq, CASE WHEN octet_length(line) <= 65535 THEN line END FROM records "
    "WHERE log_id = $1 AND seq >= $2 ORDER BY seq LIMIT $3"
)
_JOINED: Final = (
    "SELECT seq, CASE WHEN octet_length(records.line) <= 65535 THEN records.line END, "
    "CASE WHEN octet_length(facts.line) <= 65535 THEN facts.line "
    "WHEN facts.line IS NOT NULL THEN ''::bytea END FROM records "
    "LEFT JOIN facts ON facts.log_id = records.log_id AND first_seq = seq "
    "WHERE records.log_id = $1 AND seq >= $2 ORDER BY seq LIMIT 1"
)
_BLOCK: Final = (
    "SELECT count(*), min(seq), max(seq), "
    "coalesce(string_agg(line, '\\x0a'::bytea ORDER BY seq), ''::bytea), "
    "ARRAY(SELECT first_seq FROM facts WHERE log_id = $1 "
    "AND first_seq BETWEEN $2::bigint AND $2::bigint + $3::bigint - 1) "
    "FROM (SELECT seq, CASE WHEN octet_length(line) <= 65535 THEN line END AS line "
    "FROM records WHERE log_id = $1 AND seq >= $2 ORDER BY seq LIMIT $3) AS found"
)
_EARLIER: Final = (
    "SELECT first_seq, line FROM facts "
    "WHERE log_id = $1 AND first_seq BETWEEN $2 AND $3 ORDER BY first_seq"
)
_ORPHAN: Final = (
    "SELECT min(first_seq) FROM facts WHERE log_id = $1 AND first_seq >= $2 "
    "AND NOT EXISTS (SELECT 1 FROM records "
    "WHERE records.log_id = facts.log_id AND seq = first_seq)"
)
_FIND_FACTS: Final = (
    "SELECT line FROM facts WHERE log_id = $1 AND first_seq BETWEEN $2 AND $3 "
    "AND substring(line FROM 11 FOR 64) = $4 ORDER BY first_seq DESC LIMIT 1"
)
_READ: Final = (
    "SELECT seq, CASE WHEN octet_length(line) <= 65535 THEN line END FROM records "
    "WHERE log_id = $1 AND seq >= $2 AND seq < $3 ORDER BY seq"
)
_BASELINE: Final = (
    "SELECT number, line FROM baselines "
    "WHERE log_id = $1 AND next_seq = $2 AND number >= $3 ORDER BY number LIMIT $4"
)
INSERT_BASELINE: Final = (
    "INSERT INTO baselines SELECT $1, $2, $3 + n - 1, line "
    "FROM unnest($4::bytea[]) WITH ORDINALITY AS given (line, n)"
)
DROP_BASELINES: Final = (
    "DELETE FROM baselines WHERE ctid = ANY(ARRAY(SELECT ctid FROM baselines "
    "WHERE log_id = $1 AND next_seq <> $2 LIMIT $3))"
)
LOCK_FENCE: Final = "SELECT 1 FROM fence WHERE node = $1 AND epoch = $2 FOR SHARE"
NOTE_HEAD: Final = (
    "WITH mine AS MATERIALIZED "
    "(SELECT 1 FROM fence WHERE node = $3 AND epoch = $4 FOR SHARE) "
    "UPDATE logs SET head = $2 WHERE log_id = $1 AND EXISTS (SELECT 1 FROM mine)"
)

_BLOCK_ROWS: Final = 256

_MAY: Final = (
    "WITH mine AS MATERIALIZED "
    "(SELECT 1 FROM fence WHERE node = $9 AND epoch = $10 FOR SHARE), "
    "may AS MATERIALIZED (SELECT 1 FROM mine "
    "WHERE EXISTS (SELECT 1 FROM changes WHERE revision = $11 AND head = $12) "
    "AND NOT EXISTS (SELECT 1 FROM changes WHERE revision > $11 "
    "AND (subject IS NULL OR subject = ANY($13::text[])))), "
)
_ALWAYS: Final = "WITH may AS (SELECT 1), "
_INSERT: Final = (
    "marked AS (UPDATE logs SET head = $3, "
    "pruned_next = coalesce($7::bigint, pruned_next), "
    "pruned_record = coalesce($8::bigint, pruned_record) "
    "WHERE log_id = $1 AND EXISTS (SELECT 1 FROM may)), "
    "noted AS (INSERT INTO facts SELECT $1, first_seq, line "
    "FROM unnest($5::bigint[], $6::bytea[]) AS given (first_seq, line) "
    "WHERE EXISTS (SELECT 1 FROM may)) "
    "INSERT INTO records SELECT $1, $2::bigint + n - 1, line "
    "FROM unnest($4::bytea[]) WITH ORDINALITY AS given (line, n) "
    "WHERE EXISTS (SELECT 1 FROM may)"
)
_INSERT_ALWAYS: Final = _ALWAYS + _INSERT
_INSERT_IF: Final = _MAY + _INSERT


def insert_group(
    connection: ServerConnection,
    log_id: str,
    first_seq: int,
    entries: Sequence[bytes],
    facts: Sequence[tuple[int, bytes]],
    head: bytes,
    adopted: tuple[int, int] | None,
    condition: GroupCondition | None,
) -> bool:
    """
    Insert the records of a group, with its head mark, in one statement.

    Args:
        connection: In autocommit mode.

        log_id: 32 hex digits.

        first_seq: Sequence number of the first record.

        entries: Without newline.

        facts: Facts lines, each with the record that it stands before.

        head: Content of the head mark.

        adopted: The first record kept by a prune that the group records, and the
            record of that prune.

        condition: What must hold; None for nothing.

    Returns:
        Whether the condition held; if not, nothing was changed.

    Raises:
        psycopg.Error: It failed; it is not known whether it was committed.
    """
    next_seq, record_seq = adopted or (None, None)
    values: tuple[object, ...] = (
        log_id,
        first_seq,
        head,
        list(entries),
        [seq for seq, _ in facts],
        [line for _, line in facts],
        next_seq,
        record_seq,
    )
    if condition is None:
        return run(connection, _INSERT_ALWAYS, values).rowcount > 0
    values += (
        condition.node,
        condition.epoch,
        condition.revision,
        condition.head,
        list(condition.subjects),
    )
    return run(connection, _INSERT_IF, values).rowcount > 0


class PostgresTables:
    """
    `LogTables` of one log of a cluster.

    Args:
        connection: Where it is read; within one transaction if others write it.

        log_id: 32 hex digits.
    """

    def __init__(self, connection: ServerConnection, log_id: str) -> None:
        self._connection = connection
        self._log_id = log_id

    def heads(self) -> list[tuple[int, object]]:
        """Return the row of the head mark."""
        statement = "SELECT 0, head FROM logs WHERE log_id = $1"
        rows = run(self._connection, statement, (self._log_id,)).fetchall()
        return [(number, content) for number, content in rows]

    def first(self) -> int | None:
        """Return the lowest sequence number of a record; None if there is none."""
        statement = "SELECT min(seq) FROM records WHERE log_id = $1"
        return self._number(statement)

    def last(self) -> int | None:
        """Return the highest sequence number of a record; None if there is none."""
        statement = "SELECT max(seq) FROM records WHERE log_id = $1"
        return self._number(statement)

    def _number(self, statement: str, *values: object) -> int | None:
        row = run(self._connection, statement, (self._log_id, *values)).fetchone()
        found: int | None = row[0] if row else None
        return found

    def rows(
        self, start_seq: int, limit: int = -1, /
    ) -> Generator[tuple[int, bytes], None, None]:
        """
        Yield records in order of seq; see `LogTables.rows`.

        Raises:
            AuditTamperedError: A row is too long to be a record.
        """
        values = (self._log_id, start_seq, None if limit < 0 else limit)
        for seq, line in run(self._connection, _ROWS, values).fetchall():
            if not isinstance(line, bytes):
                raise tampered(Reason.FRAMING, seq)
            yield seq, line

    def joined(self, seq: int, /) -> tuple[int, object, bytes | None] | None:
        """
        Return the first record from *seq* on; see `LogTables.joined`.

        Raises:
            AuditTamperedError: The database is damaged.
            AuditUnavailableError: It can't be read now.
        """
        with log_errors(seq):
            row = run(self._connection, _JOINED, (self._log_id, seq)).fetchone()
        return None if row is None else (row[0], row[1], row[2])

    def block(self, seq: int, count: int, /) -> Block | None:
        """
        Return records from *seq* on.

        Raises:
            AuditTamperedError: The database is damaged.
            AuditUnavailableError: It can't be read now.
        """
        with log_errors(seq):
            row = run(self._connection, _BLOCK, (self._log_id, seq, count)).fetchone()
        if row is None:
            return None
        size, first, last, text, facts = row
        facts = [before for before in facts if before < seq + size]
        return Block(size, first, last, text, facts)

    def facts(self, first: int, last: int, /) -> list[tuple[int, bytes]]:
        """Return the facts lines before records *first* to *last*, in order."""
        values = (self._log_id, first, last)
        rows = run(self._connection, _EARLIER, values).fetchall()
        return [(seq, line) for seq, line in rows]

    def facts_at(self, seq: int, /) -> bytes:
        """
        Return the facts line before a record that has one.

        Raises:
            AuditTamperedError: The database is damaged.
            AuditUnavailableError: It can't be read now.
        """
        with log_errors(seq):
            return self.facts(seq, seq)[0][1]

    def orphan(self, start_seq: int, /) -> int | None:
        """Return the first facts line from *start_seq* on that serves no record."""
        return self._number(_ORPHAN, start_seq)

    def pruned(self) -> tuple[int, int] | None:
        """Return the first record that was kept, and the record of that prune."""
        statement = (
            "SELECT pruned_next, pruned_record FROM logs "
            "WHERE log_id = $1 AND pruned_next IS NOT NULL"
        )
        row = run(self._connection, statement, (self._log_id,)).fetchone()
        return None if row is None else (row[0], -1 if row[1] is None else row[1])

    def baseline(self, next_seq: int, /) -> list[tuple[int, object]]:
        """Return the lines of a baseline in order, each with its number."""
        values = (self._log_id, next_seq, 0, None)
        rows = run(self._connection, _BASELINE, values).fetchall()
        return [(number, line) for number, line in rows]


class RecordReader:
    """
    Records of one log of a cluster, read over the connections of the database.

    Args:
        database: Of the cluster.

        log_id: 32 hex digits.
    """

    def __init__(self, database: ClusterDatabase, log_id: str) -> None:
        self._database = database
        self._log_id = log_id
        self._facts = FactsCache(self._find_facts)

    def read(self, start_seq: int, count: int) -> list[bytes]:
        """
        Return that many records, without newline.

        Raises:
            AuditUnavailableError: They can't be read.
            AuditTamperedError: One of them is missing, or can't be a record.
        """
        found: list[bytes] = []
        end = start_seq + count
        with log_errors(start_seq, "The audit log can't be read."):
            for first in range(start_seq, end, _BLOCK_ROWS):
                values = (self._log_id, first, min(first + _BLOCK_ROWS, end))
                for seq, entry in self._database.rows(_READ, values):
                    if seq != start_seq + len(found):
                        raise tampered(Reason.SHORTER, start_seq + len(found))
                    if entry is None or b"\n" in entry:
                        raise tampered(Reason.FRAMING, seq)
                    found.append(self._facts.joined(entry, seq))
        if len(found) < count:
            raise tampered(Reason.SHORTER, start_seq + len(found))
        return found

    def _find_facts(self, digest: bytes, seq: int) -> bytes:
        values = (self._log_id, seq - SPAN + 1, seq, digest)
        row = self._database.row(_FIND_FACTS, values)
        return b"" if row is None else bytes(row[0])

    def baseline(self, next_seq: int) -> list[bytes]:
        """
        Return the lines of a baseline, each with its newline.

        Raises:
            AuditUnavailableError: They can't be read.
            AuditTamperedError: The database is damaged.
        """
        with log_errors():
            values = (self._log_id, next_seq, 0, None)
            return [line for _, line in self._database.rows(_BASELINE, values)]


@contextmanager
def log_errors(seq: int = 0, message: str = "") -> Iterator[None]:
    """
    Turn errors of the database into those of the log that is read.

    Args:
        seq: The record that is read, or the first of them.

        message: For callers, if it can't be read.
    """
    try:
        with postgres_errors():
            yield
    except AuditTamperedError:
        raise
    except IntegrityError as error:
        raise tampered(Reason.DATABASE, seq) from error
    except UnavailableError as error:
        raise AuditUnavailableError(message) from error
