# SPDX-License-Identifier: MIT
"""
Database that several nodes share: connections of a pool, and durable transactions.

A thread has one connection as long as its transaction lasts. A transaction whose
outcome is unknown stays so until its maker settles it, with a statement that waits for
it; others go on meanwhile. What was to be read or begun through a connection that the
server ended while it was idle is read or begun through another.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import TYPE_CHECKING, Final, TypeVar

from hsm_core._internal.lib.process import OpeningProcess
from hsm_core._internal.lib.silence import PATIENCE_SECONDS, pauses
from hsm_core._internal.stores.index_rows import Row
from hsm_core._internal.stores.postgresql.connection import (
    BEGIN,
    ConnectionLostError,
    Location,
    ServerFacts,
    TransactionConflictError,
    commit,
    connect,
    postgres_errors,
    roll_back,
    run,
)
from hsm_core._internal.stores.postgresql.migrations import migrate
from hsm_core.errors import ConfigurationError, StoreUnavailableError

if TYPE_CHECKING:
    from hsm_core._internal.stores.postgresql.driver import ServerConnection

_CONNECTIONS: Final = 8
_LISTINGS: Final = 4
"""How many long listings run at once: beats and changes need connections meanwhile."""
_ATTEMPTS: Final = 4

T = TypeVar("T")


class ClusterDatabase:
    """
    A database of a cluster, as one node uses it. Thread-safe.

    Args:
        location: Where it lies. Its tables are made, or migrated, if need be.

    Raises:
        ConfigurationError: It is another program's, or its server does not keep what
            it acknowledges.
        IntegrityError: Its tables are not as we make them.
        StoreUnavailableError: It can't be reached.

    Attributes:
        location: Where it lies.
        server: What the server said of itself when a connection was last made.
        on_change: Called with why no connection can be made, and with an empty text
            once one is made again.
    """

    def __init__(self, location: Location) -> None:
        self.location = location
        self._process = OpeningProcess()
        self._refusal = self._trouble = ""
        self.on_change: Callable[[str], None] = lambda _: None
        self._mine = threading.local()
        self._reconnected: list[Callable[[ServerFacts], None]] = []
        connection = connect(location)
        self.server = connection.server
        try:
            migrate(connection, location.name)
        finally:
            connection.close()
        self._pool = ConnectionPool(self._connect, _CONNECTIONS)
        self._listings = threading.BoundedSemaphore(_LISTINGS)

    def __repr__(self) -> str:
        return f"<ClusterDatabase {self.location.name!r}>"

    def on_new_timeline(self, call: Callable[[ServerFacts], None]) -> None:
        """Call a function when the database has another timeline than before."""
        self._reconnected.append(call)

    def _connect(self) -> ServerConnection:
        try:
            connection = connect(self.location)
        except ConfigurationError as error:
            self._tell(str(error))
            raise StoreUnavailableError(
                "The database server no longer meets the requirements. Check its "
                "version, fsync and synchronous_commit."
            ) from error
        except StoreUnavailableError as error:
            self._tell(str(error))
            # Why, and where it lies, is nothing for those who send requests.
            raise StoreUnavailableError("The database does not answer.") from error
        self._tell("")
        before, self.server = self.server, connection.server
        if before.timeline != self.server.timeline:
            for call in self._reconnected:
                call(connection.server)
        return connection

    def _tell(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            self.on_change(trouble)

    @property
    def available(self) -> bool:
        """Whether it is open."""
        return not self._refusal

    def check_usable(self) -> None:
        """
        Check that it can be used, as far as this process knows.

        Raises:
            StoreUnavailableError: It is closed, or this process was forked from the
                one that opened it.
        """
        if self._refusal:
            raise StoreUnavailableError(self._refusal)
        if not self._process.is_this():
            raise StoreUnavailableError(
                "The database was opened by the parent process; open it again in "
                "this one."
            )

    # Connections

    @property
    def _current(self) -> ServerConnection | None:
        found: ServerConnection | None = getattr(self._mine, "connection", None)
        return found

    @contextmanager
    def _connection(self) -> Iterator[ServerConnection]:
        self.check_usable()
        with self._pool.lent() as connection:
            yield connection

    # Reading

    @contextmanager
    def reading(self) -> Iterator[ServerConnection]:
        """
        Give a connection for statements that only read; of the transaction, if any.

        Each statement sees what was committed when it began.

        Raises:
            IntegrityError: The database is damaged.
            StoreUnavailableError: It can't be read, or hangs.
        """
        if self._current is not None:
            yield self._current
            return
        with self._connection() as connection, postgres_errors():
            yield connection

    def rows(
        self,
        statement: str,
        values: Sequence[object] = (),
        /,
        *,
        patience: float = PATIENCE_SECONDS,
    ) -> list[Row]:
        """
        Return all rows that a statement finds; may be called within `transaction`.

        Args:
            statement: Put together from our own texts.

            values: One for each placeholder.

            patience: Seconds that it may take.

        Raises:
            IntegrityError: The database is damaged.
            StoreUnavailableError: It can't be read, or hangs, or too many statements
                that may take long run already.
        """
        current = self._current
        if current is not None:
            return _fetch(current, statement, values, patience)
        if patience <= PATIENCE_SECONDS:
            return self._read(statement, values, patience)
        with _place_in(self._listings, "Too many keys are being listed. Try again."):
            return self._read(statement, values, patience)

    def _read(
        self, statement: str, values: Sequence[object], patience: float
    ) -> list[Row]:
        with self._connection() as connection:
            try:
                return _fetch(connection, statement, values, patience)
            except ConnectionLostError:
                if not _is_stale(connection):
                    raise
        with self._connection() as connection:
            return _fetch(connection, statement, values, patience)

    def row(self, statement: str, values: Sequence[object] = (), /) -> Row | None:
        """Return the one row that a statement finds, or None; see `rows`."""
        found = self.rows(statement, values)
        return found[0] if found else None

    # Writing

    @contextmanager
    def transaction(self, *, join: bool = False) -> Iterator[ServerConnection]:
        """
        Give a connection for one transaction: committed when the block ends, or never.

        What the block raises rolls it back. The driver's own errors may be caught
        within the block; each leaves a transaction that can only be rolled back.

        Args:
            join: Whether it becomes part of one that this thread has begun.

        Raises:
            UnsettledError: It is not known whether it was made, or will be. A
                statement that waits for it must settle that; looking does not.
            TransactionConflictError: It was rolled back; it may be begun again.
            StorageFullError: There is no room; nothing was changed.
            IntegrityError: The database is damaged; nothing was changed.
            StoreUnavailableError: Nothing was changed.
        """
        current = self._current
        if current is not None:
            if not join:
                raise RuntimeError("Transactions can't be nested.")
            yield current
            return
        with self._begun() as connection:
            self._mine.connection = connection
            try:
                with postgres_errors():
                    yield connection
            except BaseException:
                roll_back(connection)
                raise
            finally:
                self._mine.connection = None
            commit(connection)

    @contextmanager
    def _begun(self) -> Iterator[ServerConnection]:
        with self._connection() as connection:
            try:
                with postgres_errors():
                    connection.execute(BEGIN)
            except ConnectionLostError:
                if not _is_stale(connection):
                    raise
            else:
                yield connection
                return
        with self._connection() as connection:
            with postgres_errors():
                connection.execute(BEGIN)
            yield connection

    def run(self, work: Callable[[ServerConnection], T]) -> T:
        """
        Make one transaction, and make it again where another stood in its way.

        Args:
            work: What to do in it; may be called several times.

        Raises:
            HSMError: As `transaction`.
        """
        for _ in range(_ATTEMPTS - 1):
            with suppress(TransactionConflictError):
                with self.transaction() as connection:
                    found = work(connection)
                return found
        with self.transaction() as connection:
            return work(connection)

    # Ending

    def reopen(self) -> None:
        """
        Check that the database answers.

        Raises:
            StoreUnavailableError: It does not; to be tried again later.
        """
        self.rows("SELECT 1")

    def close(self) -> None:
        """Close all connections; once is enough."""
        if not self._process.is_this() or self._refusal:
            return
        self._refusal = "The database is closed."
        self._pool.close()


def _fetch(
    connection: ServerConnection,
    statement: str,
    values: Sequence[object],
    patience: float,
) -> list[Row]:
    with postgres_errors(), connection.patiently(patience):
        return run(connection, statement, values).fetchall()


def _is_stale(connection: ServerConnection) -> bool:
    """Return whether a connection may have been ended while it was idle."""
    return not connection.is_fresh and not connection.has_hung


@contextmanager
def _place_in(room: threading.BoundedSemaphore, refusal: str) -> Iterator[None]:
    """Take one of a number of places; StoreUnavailableError if none gets free."""
    if not any(room.acquire(timeout=pause) for pause in pauses(PATIENCE_SECONDS)):
        raise StoreUnavailableError(refusal)
    try:
        yield
    finally:
        room.release()


class ConnectionPool:
    """
    Connections of one database, made by the threads that need them. Thread-safe.

    So a thread learns at once that no connection can be made, and why; a pool that
    connects in the background lets it wait for its time-out. A connection that is lost
    takes the idle ones with it, which lead to the same server.

    Args:
        connect: Makes a connection.

        size: How many there may be.
    """

    def __init__(self, connect: Callable[[], ServerConnection], size: int) -> None:
        self._connect = connect
        self._room = threading.BoundedSemaphore(size)
        self._lock = threading.Lock()
        self._idle: list[ServerConnection] = []
        self._is_closed = False

    @contextmanager
    def lent(self) -> Iterator[ServerConnection]:
        """
        Lend a connection in no transaction, which nobody else has.

        One that is lost or in a transaction in the end is closed.

        Raises:
            ConfigurationError: The server does not keep what it acknowledges.
            StoreUnavailableError: None is free, or none can be made.
        """
        with _place_in(self._room, "The database does not answer."):
            with self._lock:
                found = self._idle.pop() if self._idle else None
            connection = self._connect() if found is None else found
            try:
                yield connection
            finally:
                self._take_back(connection)

    def _take_back(self, connection: ServerConnection) -> None:
        connection.is_fresh = False
        with self._lock:
            is_kept = connection.is_idle and not self._is_closed
            if is_kept:
                self._idle.append(connection)
        if not is_kept:
            connection.abandon()
            self.drain()

    def drain(self) -> None:
        """Close all idle connections."""
        with self._lock:
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()

    def close(self) -> None:
        """Close all connections; one that is in use when it is given back."""
        with self._lock:
            self._is_closed = True
        self.drain()


@cache
def numbered(statement: str) -> str:
    """Return a statement with ``$1``, ``$2`` in place of its question marks."""
    first, *others = statement.split("?")
    return first + "".join(f"${n}{text}" for n, text in enumerate(others, 1))


class NumberedRows:
    """Database whose statements have question marks."""

    def __init__(self, database: ClusterDatabase) -> None:
        self._database = database

    def rows(self, statement: str, values: Sequence[object] = (), /) -> list[Row]:
        """Return all rows that a statement finds."""
        return self._database.rows(numbered(statement), values)
