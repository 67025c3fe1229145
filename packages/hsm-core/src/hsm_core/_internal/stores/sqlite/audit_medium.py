# SPDX-License-Identifier: MIT
"""Audit medium of a database: records and head mark in one transaction."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import ClassVar, Final

from msgspec.structs import replace

from hsm_core._internal.audit.facts import SPAN, FactsCache, Record
from hsm_core._internal.audit.head_mark import HeadMark, StoredHead
from hsm_core._internal.audit.medium import Cause, MediumError, Tail
from hsm_core._internal.audit.reasons import Reason, tampered
from hsm_core._internal.lib.failpoints import failpoint
from hsm_core._internal.stores.audit_rows import (
    CHUNK,
    DatabaseMedium,
    missing_records,
    written_facts,
)
from hsm_core._internal.stores.filesystem.audit_files import medium_errors
from hsm_core._internal.stores.filesystem.audit_head import HeadFile
from hsm_core._internal.stores.records import UnsettledError
from hsm_core._internal.stores.sqlite.audit_rows import (
    SqliteTables,
    find_facts,
    insert_baseline,
    insert_records,
    read_records,
)
from hsm_core._internal.stores.sqlite.database import Database
from hsm_core.errors import (
    AuditTamperedError,
    AuditUnavailableError,
    HSMError,
    IntegrityError,
    StorageFullError,
    StoreUnavailableError,
    UnavailableError,
    WrongAuditKeyError,
)

_CHECKPOINT_BYTES: Final = 16 * 1024 * 1024
_IDLE_SECONDS: Final = 5.0
_NEVER: Final = float("inf")
_BLOCK: Final = 256
_LINES: Final = (
    "SELECT line FROM baseline WHERE next_seq = ? AND number >= ? "
    "ORDER BY number LIMIT ?"
)
_DROP_BASELINES: Final = (
    "DELETE FROM baseline WHERE (next_seq, number) IN ("
    "SELECT next_seq, number FROM baseline WHERE next_seq <> ? LIMIT ?)"
)
_SET_HEAD: Final = "INSERT OR REPLACE INTO head VALUES (0, ?)"
_SET_PRUNED: Final = "INSERT OR REPLACE INTO pruned VALUES (0, ?, ?)"


class SqliteMedium(DatabaseMedium):
    """
    An `AuditMedium` in a database.

    A kill can't undo a transaction, so that one without sync is what bounded mode calls
    written. A sync is one of the write-ahead log, for which no transaction waits.

    Args:
        database: Holds the log; closed by `close`.

        hmac_key: Key of the log.

        stored: The head mark as it is in the database.

        beside: The mark beside it; closed by `close`.
    """

    is_shared: ClassVar = False

    def __init__(
        self,
        database: Database,
        hmac_key: bytes,
        stored: StoredHead,
        beside: HeadFile,
    ) -> None:
        super().__init__(hmac_key, stored)
        self._database = database
        self._beside = beside
        self._synced = self._prepared = stored.mark
        self._unfolded = 0
        self._fold_at = _NEVER
        self._read_facts = FactsCache(partial(find_facts, database))

    def backup(self, to: Path, before_end: Callable[[], None]) -> None:
        """Copy all that is written into a new file; see `Database.backup`."""
        self._database.backup(to, before_end)

    def begin(self, mark: HeadMark) -> None:
        """
        Make all that is there durable, and say so, before anything is added.

        Raises:
            MediumError: It may not be.
        """
        with self._transaction(durable=True) as connection:
            self._note(connection, mark)
        self._note_beside(mark)
        with medium_errors(Cause.SYNC):
            self._beside.sync()
        failpoint("audit.open.after_mark")

    def write(self, records: Sequence[Record], mark: HeadMark, /) -> None:
        """
        Append records, with the mark, in one transaction.

        Raises:
            MediumError: Nothing of it was written, or all of it.
        """
        failpoint("audit.before_write")
        database = self._database
        try:
            with database.transaction(durable=False, folds=False) as connection:
                first_seq = mark.seq + 1 - len(records)
                facts = self._track(SqliteTables(connection))
                insert_records(connection, first_seq, records, facts)
                self._adopt_before(connection, mark)
                self._note(connection, mark)
        except _FAILURES as error:
            raise _medium_error(database, error, Cause.WRITE) from error
        self._wrote(mark)
        failpoint("audit.after_write")
        self._unfolded += sum(len(facts) + len(entry) for facts, entry in records)
        is_long = self._unfolded >= _CHECKPOINT_BYTES
        self._fold_at = 0.0 if is_long else time.monotonic() + _IDLE_SECONDS

    def prepare_sync(self, mark: HeadMark, /) -> None:
        """
        Note that the next sync makes durable what was written so far, up to *mark*.

        Raises:
            MediumError: The database was moved or deleted.
        """
        with _medium_errors(self._database, Cause.WRITE):
            self._database.check_in_place()
        self._prepared = mark

    def sync(self) -> None:
        """
        Sync the write-ahead log, then store the mark beside.

        Raises:
            MediumError: It may not be durable.
        """
        failpoint("audit.before_sync")
        with _medium_errors(self._database, Cause.SYNC):
            self._database.sync()
        failpoint("audit.after_sync")
        self._note_beside(self._prepared)

    def due(self) -> float:
        """Return when the mark beside or, after long silence, the log is due."""
        return min(self._fold_at, self._beside.due())

    def tidy(self) -> None:
        """
        Sync the mark beside; fold the log, so that a start needs not read it.

        Raises:
            MediumError: It failed.
        """
        if self._beside.due() <= time.monotonic():
            with medium_errors(Cause.SYNC):
                if self._beside.is_in_place():
                    self._beside.sync()
                else:
                    self._beside.heal(self._synced)
        if self._fold_at <= time.monotonic():
            self._fold()

    def heal(self, tail: Tail, cause: Cause, /) -> None:
        """
        Open the database again where that is needed, and write what it lacks.

        Raises:
            MediumError: It still can't be; nothing durable was lost.
        """
        with _medium_errors(self._database, Cause(cause)):
            self._database.reopen()
        failpoint("audit.heal.after_reopen")
        with self._transaction(durable=True) as connection:
            tables = SqliteTables(connection)
            stored = self._read_head(tables, tail.first_seq - 1)
            self._counter = max(self._counter, stored.counter)
            missing = missing_records(tables, tail)
            first_seq = tail.mark.seq + 1 - len(missing)
            self._facts = written_facts(tables, first_seq)
            insert_records(connection, first_seq, missing, self._facts)
            self._adopt_before(connection, tail.mark)
            self._note(connection, tail.mark)
        self._wrote(tail.mark)
        self._synced = tail.mark
        with medium_errors(Cause.SYNC):
            self._beside.heal(tail.mark)
        self._fold()

    def finish(self, mark: HeadMark, /) -> None:
        """
        Note that the log ends here, in order; closing folds the log.

        Raises:
            MediumError: It may not be.
        """
        failpoint("audit.before_clean_mark")
        with self._transaction(durable=True) as connection:
            self._note(connection, replace(mark, clean=True))
        with medium_errors(Cause.SYNC):
            self._beside.finish(mark)

    def read(self, start_seq: int, limit: int, /) -> list[bytes]:
        """
        Return up to *limit* written lines from *start_seq* on, without newline.

        Raises:
            AuditUnavailableError: They can't be read.
            AuditTamperedError: The database is damaged, or a row is missing.
        """
        count = min(limit, self._written.seq + 1 - start_seq)
        if count <= 0:
            return []
        with _own_errors(start_seq, "The audit log can't be read."):
            entries = read_records(self._database, start_seq, count)
            joined = self._read_facts.joined
            return [joined(entry, seq) for seq, entry in enumerate(entries, start_seq)]

    def _add_baseline(self, next_seq: int, number: int, lines: Sequence[bytes]) -> None:
        with self._own_transaction() as connection:
            insert_baseline(connection, next_seq, number, lines)

    def _baseline(self, next_seq: int) -> list[bytes]:
        lines: list[bytes] = []
        found = _BLOCK
        while found == _BLOCK:
            with _own_errors():
                rows = self._database.rows(_LINES, (next_seq, len(lines), _BLOCK))
            lines += [line for (line,) in rows]
            found = len(rows)
        return lines

    def remove(self, first_seq: int, /) -> None:
        """
        Remove the records before *first_seq*, and baselines that don't count.

        A few rows at a time, so that records can be appended meanwhile.

        Raises:
            AuditUnavailableError: It failed; to be tried again.
        """
        while self._remove_some(first_seq):
            failpoint("audit.prune.after_chunk")

    def _remove_some(self, end: int) -> bool:
        # A power cut may bring rows back, which the next start removes again.
        with self._own_transaction() as connection:
            dropped = connection.execute(_DROP_BASELINES, (end, CHUNK)).rowcount
            first = SqliteTables(connection).first()
            if first is not None and first < end:
                reach = min(first + CHUNK, end)
                connection.execute("DELETE FROM records WHERE seq < ?", (reach,))
                served = (reach - SPAN,)
                connection.execute("DELETE FROM facts WHERE first_seq <= ?", served)
                return True
        return dropped > 0

    @contextmanager
    def _own_transaction(self) -> Iterator[sqlite3.Connection]:
        with _own_errors(), self._database.transaction(durable=False) as connection:
            yield connection

    def close(self) -> None:
        """Close the database and the file beside it."""
        self._database.close()
        self._beside.close()

    @contextmanager
    def _transaction(self, *, durable: bool) -> Iterator[sqlite3.Connection]:
        with _medium_errors(self._database, Cause.WRITE):
            opened = self._database.transaction(durable=durable, folds=False)
            with opened as connection:
                yield connection

    def _adopt_before(self, connection: sqlite3.Connection, mark: HeadMark) -> None:
        if adopted := self._adopted_by(mark):
            connection.execute(_SET_PRUNED, adopted)

    def _note_beside(self, mark: HeadMark) -> None:
        # A database that is put back to an older state, for one by deleting its
        # write-ahead log after a crash, is whole and has the mark of that state. The
        # file gets each mark once its transaction is durable, so a good database is
        # never behind it.
        self._synced = mark
        with medium_errors(Cause.WRITE):
            self._beside.write(mark)

    def _note(self, connection: sqlite3.Connection, mark: HeadMark) -> None:
        connection.execute(_SET_HEAD, (self._head(mark),))
        self._counter += 1

    def _fold(self) -> None:
        try:
            with _medium_errors(self._database, Cause.SYNC):
                self._database.checkpoint()
        except MediumError as error:
            if error.cause is not Cause.FULL:
                raise
            # What can't be folded yet is safe in the log.
            self._fold_at = time.monotonic() + _IDLE_SECONDS
        else:
            self._fold_at = _NEVER
        self._unfolded = 0


_FAILURES: Final = (
    IntegrityError,
    StorageFullError,
    StoreUnavailableError,
    WrongAuditKeyError,
)
"""What a database raises that fails."""


@contextmanager
def _medium_errors(database: Database, cause: Cause) -> Iterator[None]:
    try:
        yield
    except _FAILURES as error:
        raise _medium_error(database, error, cause) from error


def _medium_error(database: Database, error: HSMError, cause: Cause) -> MediumError:
    if isinstance(error, StorageFullError):
        return MediumError(Cause.FULL)
    if isinstance(error, UnsettledError):
        return MediumError(Cause.SYNC)
    return MediumError(Cause.MOVED if database.moved else cause)


@contextmanager
def _own_errors(seq: int = 0, message: str = "") -> Iterator[None]:
    try:
        yield
    except AuditTamperedError:
        raise
    except IntegrityError as error:
        raise tampered(Reason.DATABASE, seq) from error
    except UnavailableError as error:
        raise AuditUnavailableError(message) from error
