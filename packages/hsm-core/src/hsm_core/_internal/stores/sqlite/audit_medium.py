# SPDX-License-Identifier: MIT
"""Audit medium of a database: records and head mark in one transaction."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final, NamedTuple

from hsm_core._internal.audit.head_mark import HeadCodec, HeadMark, StoredHead
from hsm_core._internal.audit.medium import Cause, MediumError, Tail
from hsm_core._internal.audit.record import Reason, tampered
from hsm_core._internal.lib.failpoints import failpoint
from hsm_core._internal.stores.sqlite.audit_beside import ExternalHeadMark
from hsm_core._internal.stores.sqlite.audit_rows import (
    head_row,
    insert_records,
    last_row,
    read_head,
    read_records,
    read_rows,
)
from hsm_core._internal.stores.sqlite.connection import UnsettledCommitError
from hsm_core._internal.stores.sqlite.database import Database
from hsm_core.errors import (
    AuditTamperedError,
    AuditUnavailableError,
    IntegrityError,
    StorageFullError,
    StoreUnavailableError,
    UnavailableError,
    WrongAuditKeyError,
)

_CHECKPOINT_BYTES: Final = 16 * 1024 * 1024
_IDLE_SECONDS: Final = 5.0
_NEVER: Final = float("inf")
_SET_HEAD: Final = "INSERT OR REPLACE INTO head VALUES (0, ?)"
_SET_PRUNED: Final = "INSERT OR REPLACE INTO pruned VALUES (0, ?, ?)"


class _Prune(NamedTuple):
    record_seq: int
    next_seq: int
    adopt: Callable[[], None]


class SqliteMedium:
    """
    A `TrailMedium` in a database.

    A kill can't undo a transaction, so that one without sync is what bounded mode calls
    written. The sync is one more transaction, which writes nothing but the mark.

    Args:
        database: Holds the trail; closed by `close`.

        hmac_key: Key of the trail.

        stored: The head mark as it is in the database.

        beside: The mark beside it; closed by `close`.
    """

    def __init__(
        self,
        database: Database,
        hmac_key: bytes,
        stored: StoredHead,
        beside: ExternalHeadMark,
    ) -> None:
        self._database = database
        self._beside = beside
        self._hmac_key = hmac_key
        self._codec = HeadCodec(hmac_key, stored.log_id)
        self._log_id = stored.log_id
        self._counter = stored.counter
        self._written = self._synced = stored.mark
        self._unfolded = 0
        self._fold_at = _NEVER
        self._prune: _Prune | None = None

    def backup(self, to: Path, before_end: Callable[[], None]) -> None:
        """Copy all that is written into a new file; see `Database.backup`."""
        self._database.backup(to, before_end)

    def prune_with(
        self, record_seq: int, next_seq: int, adopt: Callable[[], None]
    ) -> None:
        """
        Let a staged baseline count as soon as the record of its prune is written.

        Called before that record is handed over, and only when `prunes` says no.

        Args:
            record_seq: The record of the prune.

            next_seq: The first record that stays.

            adopt: Called by the writing thread when it counts.
        """
        self._prune = _Prune(record_seq, next_seq, adopt)

    @property
    def prunes(self) -> bool:
        """Whether such a record waits to be written."""
        return self._prune is not None

    def begin(self, mark: HeadMark) -> None:
        """
        Make all that is there durable, and say so, before anything is added.

        Raises:
            MediumError: It may not be.
        """
        self.sync(mark)
        self._beside.sync()
        failpoint("audit.open.after_mark")

    def write(self, lines: Sequence[bytes], mark: HeadMark, /, *, sync: bool) -> bool:
        """
        Append lines, with the mark, in one transaction.

        Raises:
            MediumError: Nothing of it was written, or all of it.
        """
        failpoint("audit.before_write")
        with self._transaction(durable=sync) as connection:
            insert_records(connection, mark.seq + 1 - len(lines), lines)
            prune = self._prune_before(connection, mark)
            self._note(connection, mark)
        self._wrote(mark, prune)
        failpoint("audit.after_write")
        if sync:
            self._synced = mark
            self._beside.write(mark)
        self._unfolded += sum(map(len, lines))
        if self._unfolded >= _CHECKPOINT_BYTES:
            self._fold()
        else:
            self._fold_at = time.monotonic() + _IDLE_SECONDS
        return sync

    def sync(self, mark: HeadMark, /) -> None:
        """
        Make all that was written durable, by a durable transaction after it.

        Raises:
            MediumError: It may not be.
        """
        failpoint("audit.before_sync")
        with self._transaction(durable=True) as connection:
            self._note(connection, mark)
        failpoint("audit.after_sync")
        self._synced = mark
        self._beside.write(mark)

    def due(self) -> float:
        """Return when the mark beside or, after long silence, the log is due."""
        return min(self._fold_at, self._beside.due())

    def tidy(self) -> None:
        """
        Sync the mark beside; fold the log, so that a start needs not read it.

        Raises:
            MediumError: It failed.
        """
        self._beside.tidy(self._synced)
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
            self._counter = max(self._counter, self._agreed(connection, tail))
            missing = self._missing(connection, tail)
            insert_records(connection, tail.mark.seq + 1 - len(missing), missing)
            prune = self._prune_before(connection, tail.mark)
            self._note(connection, tail.mark)
        self._wrote(tail.mark, prune)
        self._synced = tail.mark
        self._beside.heal(tail.mark)
        self._fold()

    def finish(self, mark: HeadMark, /) -> None:
        """
        Note that the trail ends here, in order; closing folds the log.

        Raises:
            MediumError: It may not be.
        """
        failpoint("audit.before_clean_mark")
        with self._transaction(durable=True) as connection:
            self._note(connection, replace(mark, clean=True))
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
        try:
            return read_records(self._database, start_seq, count)
        except AuditTamperedError:
            raise
        except IntegrityError as error:
            raise tampered(Reason.DATABASE, start_seq) from error
        except UnavailableError as error:
            raise AuditUnavailableError("The audit log can't be read.") from error

    def close(self) -> None:
        """Close the database and the file beside it."""
        self._database.close()
        self._beside.close()

    @contextmanager
    def _transaction(self, *, durable: bool) -> Iterator[sqlite3.Connection]:
        with _medium_errors(self._database, Cause.WRITE):
            with self._database.transaction(durable=durable) as connection:
                yield connection

    def _prune_before(
        self, connection: sqlite3.Connection, mark: HeadMark
    ) -> _Prune | None:
        prune = self._prune
        if prune is None or prune.record_seq > mark.seq:
            return None
        connection.execute(_SET_PRUNED, (prune.next_seq, prune.record_seq))
        return prune

    def _wrote(self, mark: HeadMark, prune: _Prune | None) -> None:
        self._written = mark
        if prune is not None:
            prune.adopt()
            self._prune = None

    def _note(self, connection: sqlite3.Connection, mark: HeadMark) -> None:
        self._counter += 1
        connection.execute(_SET_HEAD, (head_row(self._codec, self._counter, mark),))

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

    def _agreed(self, connection: sqlite3.Connection, tail: Tail) -> int:
        """Check that what was durable is there; return the counter of the mark."""
        stored = read_head(connection, self._hmac_key)
        if stored.log_id != self._log_id or stored.mark.seq < tail.first_seq - 1:
            raise MediumError(Cause.MOVED)
        return stored.counter

    def _missing(self, connection: sqlite3.Connection, tail: Tail) -> Sequence[bytes]:
        last = last_row(connection)
        found = 0
        for found, (seq, line) in enumerate(read_rows(connection, tail.first_seq), 1):
            if found > len(tail.lines) or tail.lines[found - 1] != line + b"\n":
                raise tampered(Reason.CHAIN, seq)
        if last is not None and last != tail.first_seq + found - 1:
            raise tampered(Reason.SEQUENCE, tail.first_seq + found)
        return tail.lines[found:]


@contextmanager
def _medium_errors(database: Database, cause: Cause) -> Iterator[None]:
    try:
        yield
    except StorageFullError as error:
        raise MediumError(Cause.FULL) from error
    except UnsettledCommitError as error:
        raise MediumError(Cause.SYNC) from error
    except (IntegrityError, StoreUnavailableError, WrongAuditKeyError) as error:
        raise MediumError(Cause.MOVED if database.moved else cause) from error
