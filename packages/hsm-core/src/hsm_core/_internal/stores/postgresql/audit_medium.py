# SPDX-License-Identifier: MIT
"""
Audit medium of a cluster: each group of records is one statement of its own connection.

The statement is a transaction, and is durable when it is answered: there is nothing to
sync. A statement without an answer may still be made, so the connection is dropped, and
what stands is read before anything else is written.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar, Final

from msgspec.structs import replace

from hsm_core._internal.audit.facts import SPAN, Record, record_of
from hsm_core._internal.audit.head_mark import HeadMark, StoredHead
from hsm_core._internal.audit.medium import (
    Cause,
    GroupCondition,
    GroupRefusedError,
    MediumError,
    Tail,
)
from hsm_core._internal.audit.reasons import Reason, tampered
from hsm_core._internal.audit.shared_groups import ClusterView
from hsm_core._internal.lib.failpoints import failpoint
from hsm_core._internal.stores.audit_rows import (
    CHUNK,
    DatabaseMedium,
    missing_records,
    written_facts,
)
from hsm_core._internal.stores.postgresql.audit_rows import (
    DROP_BASELINES,
    INSERT_BASELINE,
    LOCK_FENCE,
    NOTE_HEAD,
    PostgresTables,
    RecordReader,
    insert_group,
    log_errors,
)
from hsm_core._internal.stores.postgresql.connection import (
    connect,
    postgres_errors,
    run,
)
from hsm_core.errors import (
    AuditTamperedError,
    HSMError,
    StorageFullError,
    StoreUnavailableError,
)

if TYPE_CHECKING:
    from hsm_core._internal.stores.postgresql.database import ClusterDatabase
    from hsm_core._internal.stores.postgresql.driver import ServerConnection

_NEVER: Final = float("inf")


class PostgresMedium(DatabaseMedium):
    """
    A `SharedMedium` in the database of a cluster.

    Args:
        database: Of the cluster; for reading and pruning.

        connection: For writing; closed by `close`.

        hmac_key: Key of the log.

        stored: The head mark as it is in the database.

        view: Says which node writes it, under which epoch: once that was fenced, it
            changes nothing.

        patience_seconds: How long a statement may take.
    """

    is_shared: ClassVar = True

    def __init__(
        self,
        database: ClusterDatabase,
        connection: ServerConnection,
        hmac_key: bytes,
        stored: StoredHead,
        view: ClusterView,
        patience_seconds: float,
    ) -> None:
        super().__init__(hmac_key, stored)
        self._view = view
        self._database = database
        self._connection = connection
        self._patience = patience_seconds
        connection.patience = patience_seconds
        self._reader = RecordReader(database, stored.log_id)

    @property
    def _tables(self) -> PostgresTables:
        return PostgresTables(self._connection, self._log_id)

    def begin(self, mark: HeadMark) -> None:
        """
        Note that the log is in use, before anything is added.

        Raises:
            MediumError: It can't be noted, or the node was fenced.
        """
        self._note(mark)
        failpoint("audit.open.after_mark")

    def write(self, records: Sequence[Record], mark: HeadMark, /) -> None:
        """
        Append records, with the mark, in one transaction.

        Raises:
            MediumError: It is not known whether they were written.
        """
        self._write(records, mark, None)

    def write_if(
        self, records: Sequence[Record], mark: HeadMark, condition: GroupCondition, /
    ) -> None:
        """
        Append records in one transaction if a condition holds when it begins.

        Raises:
            GroupRefusedError: It does not hold; nothing was written.
            MediumError: It is not known whether they were written.
        """
        self._write(records, mark, condition)

    def _write(
        self,
        records: Sequence[Record],
        mark: HeadMark,
        condition: GroupCondition | None,
    ) -> None:
        failpoint("audit.before_write")
        first_seq = mark.seq + 1 - len(records)
        with self._statement():
            track = self._track(self._tables)
            facts = track.due(records, first_seq)
            is_written = insert_group(
                self._connection,
                self._log_id,
                first_seq,
                [entry[:-1] for _, entry in records],
                facts,
                self._head(mark),
                self._adopted_by(mark),
                condition,
            )
        if not is_written:
            raise GroupRefusedError("The group of audit records must be decided again.")
        track.note(facts)
        self._counter += 1
        self._wrote(mark)
        failpoint("audit.after_write")

    @contextmanager
    def _statement(self) -> Iterator[None]:
        """Drop the connection where the outcome of a statement is unknown."""
        connection = self._connection
        connection.warnings.clear()
        try:
            with postgres_errors():
                yield
        except (HSMError, ValueError) as error:
            connection.abandon()
            raise _medium_error(error) from error
        except BaseException:
            connection.abandon()
            raise
        if connection.warnings:
            # Such as: a wait for the standby was cancelled, and it may not have it.
            connection.abandon()
            raise MediumError(Cause.SYNC)

    def _note(self, mark: HeadMark) -> None:
        values = (self._log_id, self._head(mark), self._view.node, self._view.epoch)
        with self._statement():
            if not run(self._connection, NOTE_HEAD, values).rowcount:
                raise MediumError(Cause.WRITE)
        self._counter += 1

    def prepare_sync(self, _mark: HeadMark, /) -> None:
        """Do nothing: what is written is durable."""

    def sync(self) -> None:
        """Do nothing: what is written is durable."""

    def due(self) -> float:
        """Return that `tidy` is never due."""
        return _NEVER

    def tidy(self) -> None:
        """Do nothing."""

    def reconnect(self) -> None:
        """
        Connect again, after a write whose outcome is unknown.

        Raises:
            MediumError: The database can't be reached.
        """
        self._connection.abandon()
        try:
            self._connection = connect(self._database.location)
        except HSMError as error:
            raise MediumError(Cause.WRITE) from error
        self._connection.patience = self._patience

    def standing(self, first_seq: int, /) -> list[Record]:
        """
        Return the records from *first_seq* on, as `write` gets them, and go on there.

        Raises:
            MediumError: They can't be read.
            AuditTamperedError: They are damaged.
        """
        with self._statement():
            tables = self._tables
            stored = self._read_head(tables, first_seq - 1)
            entries = [entry for _, entry in tables.rows(first_seq)]
            self._facts = written_facts(tables, stored.mark.seq + 1)
        if stored.mark.seq != first_seq - 1 + len(entries):
            raise tampered(Reason.SEQUENCE, first_seq)
        self._counter = stored.counter
        self._wrote(stored.mark)
        found = self._reader.read(first_seq, len(entries))
        return [record_of(stored) for stored in found]

    def heal(self, tail: Tail, cause: Cause, /) -> None:
        """
        Connect again, and write what the log lacks.

        A statement that is still under way stands in the way of these: records have
        their numbers once.

        Raises:
            MediumError: It still can't be; nothing durable was lost.
        """
        self.reconnect()
        failpoint("audit.heal.after_reopen")
        with self._statement():
            tables = self._tables
            stored = self._read_head(tables, tail.first_seq - 1)
            missing = missing_records(tables, tail)
            self._facts = written_facts(tables, tail.mark.seq + 1 - len(missing))
        self._counter = max(self._counter, stored.counter)
        if missing:
            self._write(missing, tail.mark, None)
        self._wrote(tail.mark)

    def finish(self, mark: HeadMark, /) -> None:
        """
        Note that the log ends here, in order.

        Raises:
            MediumError: It may not be.
        """
        failpoint("audit.before_clean_mark")
        self._note(replace(mark, clean=True))

    # Reading and pruning, over connections of the database

    def read(self, start_seq: int, limit: int, /) -> list[bytes]:
        """
        Return up to *limit* written lines from *start_seq* on, without newline.

        Raises:
            AuditUnavailableError: They can't be read.
            AuditTamperedError: A row is missing.
        """
        count = min(limit, self._written.seq + 1 - start_seq)
        return self._reader.read(start_seq, count)

    def _add_baseline(self, next_seq: int, number: int, lines: Sequence[bytes]) -> None:
        values = (self._log_id, next_seq, number, list(lines))
        self._change(INSERT_BASELINE, values)

    def _baseline(self, next_seq: int) -> list[bytes]:
        return self._reader.baseline(next_seq)

    def remove(self, first_seq: int, /) -> None:
        """
        Remove the records before *first_seq*, and baselines that don't count.

        Raises:
            AuditUnavailableError: It failed; to be tried again.
        """
        while self._change(DROP_BASELINES, (self._log_id, first_seq, CHUNK)):
            failpoint("audit.prune.after_chunk")
        while (first := self._first()) is not None and first < first_seq:
            reach = min(first + CHUNK, first_seq)
            statement = "DELETE FROM records WHERE log_id = $1 AND seq < $2"
            self._change(statement, (self._log_id, reach))
            statement = "DELETE FROM facts WHERE log_id = $1 AND first_seq <= $2"
            self._change(statement, (self._log_id, reach - SPAN))
            failpoint("audit.prune.after_chunk")

    def _first(self) -> int | None:
        with log_errors(), self._database.reading() as connection:
            return PostgresTables(connection, self._log_id).first()

    def _change(self, statement: str, values: tuple[object, ...]) -> int:
        def change(connection: ServerConnection) -> int:
            fence = (self._view.node, self._view.epoch)
            if run(connection, LOCK_FENCE, fence).fetchone() is None:
                raise StoreUnavailableError
            return run(connection, statement, values).rowcount

        with log_errors():
            return self._database.run(change)

    def close(self) -> None:
        """Close the connection for writing."""
        self._connection.close()


def _medium_error(error: Exception) -> Exception:
    if isinstance(error, AuditTamperedError | MediumError):
        return error
    is_full = isinstance(error, StorageFullError)
    return MediumError(Cause.FULL if is_full else Cause.WRITE)
