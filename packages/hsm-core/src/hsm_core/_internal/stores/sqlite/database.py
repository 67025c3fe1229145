# SPDX-License-Identifier: MIT
"""
SQLite database, exclusive to one process, with durable transactions.

There is one connection, which all threads share under one lock. It holds the database
exclusively and nobody else moves its log into it: so the defect of SQLite before
3.51.3, where two connections that write and checkpoint at once can lose a transaction,
can't happen. A transaction is synced when it is made, and the log is moved into the
database between transactions, where a failure is seen and not swallowed.

After a failed commit or write nobody is sure of the disk, and a sync that succeeds
later proves nothing about it. The database then refuses everything until `reopen`.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from hsm_core._internal.lib.failpoints import failpoint
from hsm_core._internal.lib.process import OpeningProcess
from hsm_core._internal.lib.silence import MOMENT_SECONDS
from hsm_core._internal.stores.filesystem.opening import (
    lock_file,
    open_no_follow,
    sibling,
    storage_errors,
)
from hsm_core._internal.stores.index_rows import Row
from hsm_core._internal.stores.records import UnsettledError
from hsm_core._internal.stores.sqlite import connection as connections
from hsm_core._internal.stores.sqlite import files
from hsm_core._internal.stores.sqlite.connection import (
    SQLITE_ERRORS,
    Schema,
    is_input_output,
    own_error,
    sqlite_errors,
    translate,
)
from hsm_core._internal.stores.sqlite.files import FileAnchor, back_up
from hsm_core.errors import HSMError, StorageFullError, StoreUnavailableError

_PATIENCE_SECONDS: Final = 1.5
"""Time that readers wait for the connection; a request has two seconds."""


class ConnectionLock:
    """
    A turn of one thread at a time, which may take it again within.

    Attributes:
        lock: Held by whose turn it is. Who asks for little may take it, if nobody else
            has it, without telling since when.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self._since = 0.0
        self._depth = 0

    def take(self) -> None:
        """
        Take the turn as soon as it is free.

        Raises:
            StoreUnavailableError: Another has it for too long.
        """
        if not self.lock.acquire(blocking=False):
            self.wait()
        self._begin()

    @contextmanager
    def patiently(self) -> Iterator[None]:
        """Have the turn, however long it takes until it comes."""
        self.begin()
        try:
            yield
        finally:
            self.end()

    def wait(self) -> None:
        """
        Take the lock alone, as soon as it is free.

        Raises:
            StoreUnavailableError: Another has it for too long.
        """
        asked = time.monotonic()
        while True:
            since = self._since or asked
            left = since + _PATIENCE_SECONDS - time.monotonic()
            if self.lock.acquire(timeout=max(left, MOMENT_SECONDS)):
                return
            if left <= 0 and since == (self._since or asked):
                raise StoreUnavailableError("The database does not answer.")

    def begin(self) -> None:
        """Take the turn, however long it takes until it comes."""
        self.lock.acquire()
        self._begin()

    def end(self) -> None:
        """Give the turn to the next."""
        self._depth -= 1
        if not self._depth:
            self._since = 0.0
        self.lock.release()

    def _begin(self) -> None:
        if not self._depth:
            self._since = time.monotonic()
        self._depth += 1


_CHECKPOINT_COMMITS: Final = 64
_LOG_BYTES: Final = 64 * 1024 * 1024
_BACKUP_PAUSE_SECONDS: Final = 0.001


def _nothing() -> None:
    """Do nothing."""


class Database:
    """
    One file, open in one process through one connection. Thread-safe.

    Args:
        path: The database; it and its directory are made, private, if absent.

        schema: What tables it has.

    Raises:
        StoreLockedError: Another process, or another part of this one, has it open.
        UnsafeFileModeError: Other users may reach one of its files, or it is a link.
        ConfigurationError: It is of another kind, or of a newer program.
        IntegrityError: It is damaged, or no database.
        StoreUnavailableError: It can't be made or read.
    """

    def __init__(self, path: Path, schema: Schema) -> None:
        # SQLite would take some relative names for an address of something else.
        path = path.absolute()
        self.path = path
        self._log = sibling(path, "-wal")
        self._schema = schema
        self._turn = ConnectionLock()
        self._process = OpeningProcess()
        self._refusal = ""
        self._is_closed = False
        self._is_moved = False
        self._is_durable = True
        self._commits = 0
        self._anchor = FileAnchor()
        self._log_descriptor = -1
        files.make_parent(path)
        self._lock = lock_file(sibling(path, ".lock"))
        try:
            files.prepare_file(path, schema.application_id)
            self._connection = self._connect()
        except BaseException:
            self._anchor.release()
            self._lock.release()
            raise

    def __repr__(self) -> str:
        return f"<Database {str(self.path)!r}>"

    def _connect(self) -> sqlite3.Connection:
        with storage_errors():
            self._anchor.hold(self.path)
        connection = connections.connect(self.path, self._schema)
        try:
            # SQLite locks the database's file, never its log: so this may be closed.
            with storage_errors():
                descriptor = open_no_follow(self._log, os.O_RDWR)
        except BaseException:
            connections.close(connection, fold_log=False)
            raise
        self._close_log()
        self._log_descriptor = descriptor
        self._is_durable = True
        self._identity = self._identities()
        return connection

    def _close_log(self) -> None:
        descriptor, self._log_descriptor = self._log_descriptor, -1
        if descriptor >= 0:
            with suppress(OSError):
                os.close(descriptor)

    def _identities(self) -> tuple[tuple[int, int] | None, ...]:
        return files.identity_of(self.path), files.identity_of(self._log)

    @property
    def available(self) -> bool:
        """Whether it is open, and no write has failed."""
        return not self._refusal

    @property
    def moved(self) -> bool:
        """Whether a write found that another file, or none, has its name."""
        return self._is_moved

    def check_usable(self) -> None:
        """
        Check that it can be used.

        Raises:
            StoreUnavailableError: It is closed, a write has failed, or this process
                was forked from the one that opened it.
        """
        if self._refusal:
            raise StoreUnavailableError(self._refusal)
        if not self._process.is_this():
            raise StoreUnavailableError(
                "The database was opened by the parent process; open it again in "
                "this one."
            )

    # Reading

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """
        Give the connection, for statements that must see one state.

        Nothing may be written, and every cursor must be exhausted or closed before the
        block ends.

        Raises:
            IntegrityError: The database is damaged.
            StoreUnavailableError: It can't be read, or a write hangs.
        """
        self.check_usable()
        self._turn.take()
        try:
            self.check_usable()
            yield self._connection
        except SQLITE_ERRORS as error:
            raise own_error(error) from error
        finally:
            self._turn.end()

    def rows(self, statement: str, values: Sequence[object] = (), /) -> list[Row]:
        """
        Return all rows that a statement finds; may be called within `transaction`.

        Raises:
            IntegrityError: The database is damaged.
            StoreUnavailableError: It can't be read, or a write hangs.
        """
        # Written out, as every request comes here: calls and context managers cost as
        # much as the statement. In a forked child the mutex may never be released.
        if self._refusal or not self._process.is_this():
            self.check_usable()
        lock = self._turn.lock
        if not lock.acquire(blocking=False):
            self._turn.wait()
        try:
            if self._refusal:
                self.check_usable()
            return self._connection.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise translate(error) from error
        finally:
            lock.release()

    def row(self, statement: str, values: Sequence[object] = (), /) -> Row | None:
        """Return the one row that a statement finds, or None; see `rows`."""
        found = self.rows(statement, values)
        return found[0] if found else None

    # Writing

    @contextmanager
    def transaction(
        self, *, durable: bool = True, join: bool = False, folds: bool = True
    ) -> Iterator[sqlite3.Connection]:
        """
        Give the connection for one transaction: made when the block ends, or never.

        What the block raises rolls it back. Transactions can't be nested.

        Args:
            durable: Whether it is synced, with all before it. If not, a power cut may
                undo it and all after it up to the next one that is; a kill can't.

            join: Whether it becomes part of one that this thread has begun.

            folds: Whether it may move the log into the database when it is made; if
                not, the caller does that.

        Raises:
            UnsettledError: It is not known whether it was made; the database
                refuses everything until it is reopened.
            StorageFullError: There is no room; nothing was changed.
            IntegrityError: The database is damaged; nothing was changed.
            StoreUnavailableError: Nothing was changed.
        """
        # Written out, as each record may come here: a context manager of its own for
        # the turn, and one for the errors, cost as much as a statement.
        self.check_usable()
        is_own = False
        self._turn.begin()
        try:
            self.check_usable()
            if self._connection.in_transaction:
                if not join:
                    raise RuntimeError("Transactions can't be nested.")
                with sqlite_errors():
                    yield self._connection
                return
            is_own = True
            try:
                self._begin(durable)
                yield self._connection
                if durable:
                    self.check_in_place()
            except SQLITE_ERRORS as error:
                problem = own_error(error)
                self._roll_back(error)
                raise problem from error
            except BaseException as error:
                self._roll_back(error.__cause__)
                raise
            self._commit()
            if folds:
                self._after_commit()
        finally:
            if is_own and self._connection.in_transaction:
                # For lack of memory it could not be rolled back; to reopen does that.
                self._poison()
            self._turn.end()

    def _begin(self, durable: bool) -> None:
        if durable is not self._is_durable:
            level = "FULL" if durable else "NORMAL"
            self._connection.execute(f"PRAGMA synchronous = {level}")
            self._is_durable = durable
        self._connection.execute("BEGIN IMMEDIATE")

    def check_in_place(self) -> None:
        """
        Check that the database and its lock are where they were.

        Raises:
            StoreUnavailableError: One was moved or deleted; reopen the database.
        """
        # What goes into a file that has no name any more is lost at the next start, and
        # a lock without its name keeps nobody out.
        with storage_errors():
            is_locked = self._lock.is_in_place()
        if not is_locked or self._identities() != self._identity:
            self._is_moved = True
            self._poison()
            raise StoreUnavailableError(
                "The database or its lock file was moved or deleted."
            )

    def _roll_back(self, cause: BaseException | None) -> None:
        if isinstance(cause, sqlite3.Error) and is_input_output(cause):
            self._poison()
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._poison()

    def _commit(self) -> None:
        try:
            failpoint("sqlite.before_commit")
            self._connection.execute("COMMIT")
        except sqlite3.Error as error:
            problem = translate(error)
            if isinstance(problem, StorageFullError):
                # The frame that makes it count is the last to be written, so nothing
                # has happened.
                self._roll_back(None)
                if self.available:
                    raise problem from error
            self._poison()
            raise UnsettledError from error
        except BaseException:
            self._poison()
            raise

    def _poison(self) -> None:
        self._refusal = "A write failed; reopen the database."

    # The log

    def sync(self) -> None:
        """
        Make all transactions durable that were made; others may be made meanwhile.

        Raises:
            UnsettledError: They may not be; the database refuses everything until it
                is reopened.
            StoreUnavailableError: It is closed, or a write has failed.
        """
        self.check_usable()
        try:
            failpoint("sqlite.before_sync")
            os.fdatasync(self._log_descriptor)
        except BaseException as error:
            self._poison()
            raise UnsettledError from error

    def _after_commit(self) -> None:
        # The transaction is made, so a failure here is not its caller's.
        with suppress(HSMError):
            self._commits += 1
            if self._commits >= _CHECKPOINT_COMMITS or self._is_log_long():
                self.checkpoint()

    def _is_log_long(self) -> bool:
        return files.size_of(self._log) > _LOG_BYTES

    def checkpoint(self) -> None:
        """
        Move what the log holds into the database, durably.

        Done by itself after so many transactions; callers may do it when idle.

        Raises:
            StorageFullError: There is no room yet; nothing is lost.
            StoreUnavailableError: It failed; the database must be reopened.
        """
        self.check_usable()
        with self._turn.patiently():
            self.check_usable()
            self._commits = 0
            try:
                mode = "TRUNCATE" if self._is_log_long() else "PASSIVE"
                with sqlite_errors():
                    connections.checkpoint(self._connection, mode)
            except StorageFullError:
                raise
            except HSMError:
                self._poison()
                raise

    def verify(self) -> None:
        """
        Read every page and index entry; takes its time, and everybody waits.

        Raises:
            IntegrityError: They do not fit together.
            StoreUnavailableError: They can't be read.
        """
        with self.reading() as connection:
            connections.verify(connection)

    def backup(self, to: Path, before_end: Callable[[], None] = _nothing) -> None:
        """
        Copy the database as it is now, or a little later, while it is used.

        Args:
            to: A new file; it gets mode 0600 and is durable afterwards.

            before_end: Called once, when little is left to be copied; all that was
                written until it returns is in the copy.

        Raises:
            ConfigurationError: There is a file of this name.
            StorageFullError: There is no room for it.
            StoreUnavailableError: It failed, or the database was closed meanwhile.
        """
        with self.reading() as source:

            def give_way(call: Callable[[], None] | None) -> None:
                self._turn.end()
                try:
                    if call is None:
                        time.sleep(_BACKUP_PAUSE_SECONDS)
                    else:
                        call()
                finally:
                    self._turn.begin()
                self.check_usable()
                if source is not self._connection:
                    raise StoreUnavailableError("The database was reopened.")

            back_up(source, to, give_way, before_end)

    # Ending

    def reopen(self) -> None:
        """
        After a failed write: make durable what is really there, and go on.

        A transaction whose outcome is unknown is then made or not. Where nothing
        failed, nothing happens.

        Raises:
            IntegrityError: The database is damaged.
            StoreLockedError: Another process has locked it meanwhile.
            StoreUnavailableError: It still can't be used; to be tried again later.
        """
        with self._turn.patiently():
            if self._is_closed or not self._process.is_this():
                self.check_usable()
            if self.available:
                return
            self._lock.renew()
            if files.identity_of(self.path) != self._identity[0]:
                self._restore()
            connections.close(self._connection, fold_log=self._is_moved)
            self._open_again()

    def _restore(self) -> None:
        # The only way to what it holds is the connection that is open. A file that was
        # deleted is written again from it; one that was moved may come back.
        if not self._anchor.is_deleted or files.identity_of(self.path) is not None:
            raise StoreUnavailableError("The database was moved or deleted.")
        with sqlite_errors():
            back_up(self._connection, self.path, lambda _: None, _nothing)
        self._identity = self._identities()

    def _open_again(self) -> None:
        # What a failed sync left may lie in memory only, though it looks written, and
        # a second sync would not write it. So what the log holds is written afresh, to
        # a new file and from there into the database, where its syncs do count.
        files.check_files(self.path, self._schema.application_id)
        files.rewrite_log(self.path)
        connection = self._connect()
        try:
            with sqlite_errors():
                connections.verify(connection)
                done = connections.checkpoint(connection, "TRUNCATE")
            if not done:
                raise StoreUnavailableError
        except BaseException:
            connections.close(connection, fold_log=False)
            raise
        self._connection = connection
        self._is_moved = False
        self._commits = 0
        self._refusal = ""

    def close(self) -> None:
        """Fold the log, close the connection and release the lock; once is enough."""
        if not self._process.is_this():
            return
        with self._turn.patiently():
            if self._is_closed:
                return
            fold = self.available or self._is_moved
            self._is_closed = True
            self._refusal = "The database is closed."
            connections.close(self._connection, fold_log=fold)
            self._close_log()
            self._anchor.release()
            self._lock.release()
