# SPDX-License-Identifier: MIT
"""Audit logs of a cluster, as a node reads those of the others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from hsm_core._internal.audit.baseline import check_baseline, known_keys
from hsm_core._internal.audit.head_mark import StoredHead
from hsm_core._internal.audit.heads import HEADS
from hsm_core._internal.audit.reading import lines_from, pruned_before
from hsm_core._internal.audit.reasons import Reason, tampered
from hsm_core._internal.audit.record import MEMBERS, leaf_hash
from hsm_core._internal.audit.verify import recover, verify_range
from hsm_core._internal.stores.audit_rows import StoredRows, read_head
from hsm_core._internal.stores.postgresql.audit import LEDGER, READ_ONE_STATE
from hsm_core._internal.stores.postgresql.audit_rows import (
    PostgresTables,
    RecordReader,
    log_errors,
)
from hsm_core._internal.stores.postgresql.connection import connect, run
from hsm_core.errors import AuditTamperedError
from hsm_core.model import AuditEvent, LogHead
from hsm_core.operations import AuditVerification
from hsm_core.protocols import AuditHead, KnownKey

if TYPE_CHECKING:
    from hsm_core._internal.stores.postgresql.database import ClusterDatabase
    from hsm_core._internal.stores.postgresql.driver import ServerConnection

_LIST: Final = (
    "SELECT log_id, node, head FROM logs WHERE node <> $1 ORDER BY node, log_id"
)
_HEADS: Final = "SELECT log_id, head FROM logs WHERE node <> $1 ORDER BY node, log_id"
_LEDGER: Final = "SELECT log_id FROM logs WHERE node = $1"
_GROWTH: Final = (
    "SELECT 1 FROM records WHERE log_id = $1 AND seq >= $2 AND seq < $3 "
    "AND substring(line FROM $4::integer FOR $5::integer) <> $6 LIMIT 1"
)
_HEADS_KIND: Final = b'"kind":"%b"' % HEADS.encode()


class LogName(msgspec.Struct, frozen=True):
    """
    A log of a cluster, as the database names it.

    Attributes:
        log_id: 32 hex digits.
        node: Node that writes it.
        written: Its head mark as stored.
    """

    log_id: str
    node: str
    written: bytes = b""


def log_names(connection: ServerConnection) -> list[LogName]:
    """
    Return all audit logs of a cluster, by node.

    Raises:
        psycopg.Error: They can't be read.
    """
    return [LogName(*row) for row in run(connection, _LIST, (LEDGER,)).fetchall()]


def ledger_id(connection: ServerConnection) -> str:
    """
    Return the log ID of the retention ledger; empty if there is none.

    Raises:
        psycopg.Error: It can't be read.
    """
    row = run(connection, _LEDGER, (LEDGER,)).fetchone()
    return str(row[0]) if row else ""


def read_mark(tables: PostgresTables, log_id: str, hmac_key: bytes) -> StoredHead:
    """
    Return the head mark of a log.

    Raises:
        WrongAuditKeyError: It was written with another HMAC key.
        AuditTamperedError: It is missing, of another log, or was altered.
    """
    stored = read_head(tables, hmac_key)
    if stored.log_id != log_id:
        raise tampered(Reason.LOG_ID, 0)
    return stored


class ReadableLog:
    """
    Log of any node, to be read while that node may write it.

    Args:
        database: Of the cluster.

        log_id: 32 hex digits.

        hmac_key: Key of the audit log.

    Attributes:
        log_id: The same.
    """

    def __init__(self, database: ClusterDatabase, log_id: str, hmac_key: bytes) -> None:
        self._database = database
        self._hmac_key = hmac_key
        self._reader = RecordReader(database, log_id)
        self.log_id = log_id

    def mark(self) -> StoredHead:
        """
        Return the head mark as it is now.

        Raises:
            AuditTamperedError: It is missing, or was altered.
            AuditUnavailableError: It can't be read.
        """
        with log_errors(), self._database.reading() as connection:
            tables = PostgresTables(connection, self.log_id)
            return read_mark(tables, self.log_id, self._hmac_key)

    def head(self) -> AuditHead:
        """
        Return position and leaf hash of the newest record.

        Raises:
            AuditTamperedError: The head mark is missing, or was altered.
            AuditUnavailableError: It can't be read.
        """
        mark = self.mark().mark
        return AuditHead(mark.seq, mark.leaf_hash)

    def has_grown(self, size: int, end: int) -> bool:
        """
        Return whether records of a range are other than those of heads.

        Args:
            size: The first record.

            end: The record behind the last one.

        Raises:
            AuditUnavailableError: It can't be read.
        """
        kind = (MEMBERS + 1, len(_HEADS_KIND), _HEADS_KIND)
        with log_errors():
            values = (self.log_id, size, end, *kind)
            return self._database.row(_GROWTH, values) is not None

    @property
    def first_seq(self) -> int:
        """
        Oldest record that is there; all before it were pruned.

        Raises:
            AuditUnavailableError: It can't be read.
        """
        with log_errors(), self._database.reading() as connection:
            pruned = PostgresTables(connection, self.log_id).pruned()
        return 0 if pruned is None else pruned[0]

    def lines(self, start_seq: int, limit: int, /) -> list[bytes]:
        """
        Return up to *limit* records from *start_seq* on, without newline.

        Raises:
            AuditTamperedError: Fewer are there than the head mark says.
            AuditUnavailableError: They can't be read.
            InvalidInputError: *start_seq* lies before `first_seq`.
        """
        count = min(limit, self.head().seq + 1 - start_seq)
        try:
            return self._reader.read(start_seq, count) if count > 0 else []
        except AuditTamperedError:
            # What its node removes while it is read is not damaged.
            first = self.first_seq
            if start_seq >= first:
                raise
            raise pruned_before(first) from None

    def baseline(self) -> Iterator[KnownKey]:
        """
        Return what the pruned records said of each key.

        Raises:
            AuditTamperedError: It was altered.
            AuditUnavailableError: It can't be read.
        """
        first = self.first_seq
        while first:
            lines = self._reader.baseline(first)
            try:
                check_baseline(lines, log_id=self.log_id, hmac_key=self._hmac_key)
            except AuditTamperedError:
                former, first = first, self.first_seq
                if first == former:
                    raise
            else:
                yield from known_keys(lines)
                return

    def verify(self, start_seq: int, limit: int) -> AuditVerification:
        """
        Verify a range of records; see `verify_range`.

        Raises:
            AuditTamperedError: A record is bad or missing.
            AuditUnavailableError: The log can't be read.
            InvalidInputError: *start_seq* lies beyond the end.
        """
        return verify_range(self, self._hmac_key, start_seq, limit)

    def leaf_at(self, seq: int) -> AuditHead | None:
        """
        Return a record, or the newest one before it, or the oldest one after it.

        Returns:
            Its number and leaf hash; None for an empty log.

        Raises:
            AuditTamperedError: It is missing.
            AuditUnavailableError: It can't be read.
        """
        found, lines = lines_from(self, min(seq, self.head().seq), 1)
        return AuditHead(found, leaf_hash(lines[0])) if lines else None


class _EndedLog(ReadableLog):
    """Log up to the record that was its newest when this was made, verified."""

    def __init__(self, database: ClusterDatabase, log_id: str, hmac_key: bytes) -> None:
        super().__init__(database, log_id, hmac_key)
        self._stored = ReadableLog(database, log_id, hmac_key)
        self._end = self._stored.head()

    def head(self) -> AuditHead:
        """Return position and leaf hash of the newest record then."""
        return self._end

    def lines(self, start_seq: int, limit: int, /) -> list[bytes]:
        """
        Return records, after they were verified; see `ReadableLog.lines`.

        Raises:
            AuditTamperedError: One of them is bad.
        """
        self._stored.verify(start_seq, limit)
        return super().lines(start_seq, limit)


class _Quiet(NamedTuple):
    """Records of a log that are those of heads, and its head mark behind them."""

    start: int
    end: int
    written: bytes = b""


_NEVER: Final = _Quiet(0, 0)


class ClusterLogs:
    """
    All audit logs of a cluster.

    Args:
        database: Of the cluster.

        hmac_key: Key of the audit logs.
    """

    def __init__(self, database: ClusterDatabase, hmac_key: bytes) -> None:
        self._database = database
        self._hmac_key = hmac_key
        self._quiet: dict[str, _Quiet] = {}

    def names(self) -> list[LogName]:
        """
        Return all logs, by node.

        Raises:
            AuditUnavailableError: They can't be read.
        """
        with log_errors(), self._database.reading() as connection:
            return log_names(connection)

    def log(self, log_id: str) -> ReadableLog:
        """Return a log, to be read."""
        return ReadableLog(self._database, log_id, self._hmac_key)

    def ledger(self) -> ReadableLog | None:
        """
        Return the retention ledger, to be read; None if there is none.

        Raises:
            AuditUnavailableError: It can't be read.
        """
        with log_errors(), self._database.reading() as connection:
            log_id = ledger_id(connection)
        return self.log(log_id) if log_id else None

    def ended_log(self, log_id: str) -> ReadableLog:
        """
        Return a log up to what is its newest record now; records are verified.

        Raises:
            AuditTamperedError: The head mark is missing, or was altered.
            AuditUnavailableError: It can't be read.
        """
        return _EndedLog(self._database, log_id, self._hmac_key)

    def log_of(self, node: str) -> str:
        """Return the ID of the log that a node writes; empty if there is none."""
        found = [n.log_id for n in self.names() if n.node == node]
        return found[0] if found else ""

    def grown(self, known: Mapping[str, int]) -> list[LogHead]:
        """
        Return the heads of the logs that have grown, other than by records of heads.

        Args:
            known: Number of records that is known of each log; 0 where it is left out.

        Raises:
            AuditTamperedError: A head mark is missing, or was altered.
            AuditUnavailableError: They can't be read.
        """
        found = []
        with log_errors():
            stored = self._database.rows(_HEADS, (LEDGER,))
        for log_id, written in stored:
            before = known.get(log_id, 0)
            # An idle node names the others for months: each record is looked at once.
            quiet = self._quiet.get(log_id, _NEVER)
            if not quiet.start <= before <= quiet.end:
                quiet = _Quiet(before, before)
            # Most logs are those of nodes that are gone.
            if before == 2**62 or written == quiet.written:
                continue
            log = self.log(log_id)
            head = log.head()
            size = head.seq + 1
            if log.has_grown(quiet.end, size):
                leaf = head.leaf_hash
                found.append(LogHead(log_id=log_id, size=size, leaf_hash=leaf))
            else:
                self._quiet[log_id] = _Quiet(quiet.start, size, written)
        return found

    def open_intents(self, log_id: str) -> list[AuditEvent]:
        """
        Return the intents of a log that have no outcome in it, oldest first.

        Raises:
            AuditTamperedError: The log is damaged.
            AuditUnavailableError: It can't be read.
        """
        with log_errors():
            connection = connect(self._database.location)
            try:
                run(connection, READ_ONE_STATE)
                stored = StoredRows(PostgresTables(connection, log_id), self._hmac_key)
                return recover(stored, self._hmac_key).end.open_events()
            finally:
                connection.abandon()
