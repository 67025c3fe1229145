# SPDX-License-Identifier: MIT
"""
Connection to PostgreSQL: where it leads, its time limits, its checks and its errors.

The driver is imported when a connection is first needed. Every statement has a time
limit of this side, too: a server that hangs holds nobody for longer than an answer may
take, and what it does later is found out under the rules of an unknown outcome.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import msgspec

from hsm_core._internal.stores.index_rows import Row
from hsm_core._internal.stores.records import UnsettledError
from hsm_core.errors import (
    ConfigurationError,
    ConflictError,
    HSMError,
    IntegrityError,
    StorageFullError,
    StoreUnavailableError,
)

if TYPE_CHECKING:
    from psycopg import Cursor

    from hsm_core._internal.stores.postgresql.driver import ServerConnection

SCHEMES: Final = ("postgresql://", "postgres://")

BEGIN: Final = (
    "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; "
    "SET LOCAL lock_timeout = 1500; "
    "SET LOCAL idle_in_transaction_session_timeout = 1000"
)
"""
Begins a transaction, in one write, with all that it needs of its session.

Nothing is set for a session: through a pooler it may serve others in between.
"""

_LEAST_VERSION: Final = 140000
_FACTS: Final = (
    "SELECT current_setting('server_version_num')::integer, "
    "current_setting('fsync'), current_setting('synchronous_commit'), "
    "current_setting('synchronous_standby_names'), "
    "CASE WHEN pg_is_in_recovery() THEN '' "
    "ELSE substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8) END, "
    "current_setting('server_encoding')"
)
_DURABLE: Final = frozenset({"on", "remote_apply"})


class TransactionConflictError(StoreUnavailableError):
    """A transaction was rolled back because of another; it may be begun again."""


class UnreachableError(StoreUnavailableError):
    """The server refuses the connection, or there is none."""


class ConnectionLostError(StoreUnavailableError):
    """The connection is gone, and nothing of its transaction was made."""


class Location(msgspec.Struct, frozen=True):
    """
    Address of a database, with what libpq needs to connect to it.

    Attributes:
        name: What messages call it: hosts and database, without user and password.
        hosts: Number of hosts.
    """

    name: str
    _conninfo: str
    hosts: int = 1

    def __repr__(self) -> str:
        return f"<Location {self.name!r}>"

    @property
    def conninfo(self) -> str:
        """Connection string of libpq, with the password if it has one. Secret."""
        return self._conninfo


def is_location(text: str) -> bool:
    """Return whether a setting names a PostgreSQL database."""
    return text.startswith(SCHEMES)


def read_location(
    text: str, *, password: str = "", field: str = "store", name: str = "hsm"
) -> Location:
    """
    Read the address of a database.

    TLS with a verified host name is the rule where the address says nothing of it;
    libpq leaves TLS away on a local socket.

    Args:
        text: A URI of libpq: ``postgresql://user@host:port/database?option=value``,
            with several hosts if there are.

        password: Takes the place of one in the URI; from a file or the environment.

        field: The setting, for messages.

        name: Name of this program in the list of the server's sessions.

    Raises:
        ConfigurationError: It has another form, or psycopg is not installed.
    """
    conninfo = _driver(field).conninfo
    try:
        # What the parser says of a wrong text may repeat its password.
        found = conninfo.conninfo_to_dict(text) if is_location(text) else None
    except Exception:
        found = None
    if found is None:
        raise ConfigurationError(
            f"{field} must be postgresql://USER@HOST:PORT/DATABASE, with parameters of "
            "libpq after a question mark.",
            field=field,
        )
    if password:
        found["password"] = password
    if not found.get("sslmode") and not os.environ.get("PGSSLMODE"):
        found["sslmode"] = "verify-full"
    found.setdefault("target_session_attrs", "read-write")
    found.setdefault("connect_timeout", "2")
    found.setdefault("tcp_user_timeout", "2000")
    found["application_name"] = f"ferrohsm {name}"
    found["client_encoding"] = "UTF8"
    hosts = found.get("host") or found.get("hostaddr") or "local"
    database = found.get("dbname") or found.get("user") or ""
    address = conninfo.make_conninfo("", **found)
    return Location(f"{hosts}/{database}", address, hosts.count(",") + 1)


def connect(location: Location) -> ServerConnection:
    """
    Connect to a database, and check that its server keeps what it acknowledges.

    The connection is in autocommit mode, and placeholders are ``$1``, ``$2``.

    Raises:
        ConfigurationError: The server is too old, or loses what it acknowledged.
        UnreachableError: It refuses, or there is none.
        StoreUnavailableError: It does not answer.
    """
    from hsm_core._internal.stores.postgresql.driver import ServerConnection

    try:
        connection = ServerConnection.reach(location.conninfo, location.hosts)
    except Exception as error:
        # What libpq says names hosts and reasons, never a password.
        reason = " ".join(str(error).split())[:400]
        is_slow = isinstance(error, _driver("store").too_slow)
        kind = StoreUnavailableError if is_slow else UnreachableError
        raise kind(f"store: {location.name} can't be reached: {reason}") from error
    try:
        connection.server = inspect_server(connection)
    except BaseException:
        connection.abandon()
        raise
    return connection


class ServerFacts(msgspec.Struct, frozen=True):
    """
    Settings of a server that durability rests on.

    Attributes:
        version: As ``server_version_num``: 170002 is 17.2.
        timeline: Eight hexadecimal digits; another one after each promotion.
        has_standby: Whether a commit waits for a synchronous standby. If not, a change
            that was acknowledged can be lost by a fail-over.
    """

    version: int
    timeline: str
    has_standby: bool


def inspect_server(connection: ServerConnection) -> ServerFacts:
    """
    Read and check the settings of the server and of this session.

    Raises:
        ConfigurationError: The server is older than PostgreSQL 14, stores text
            otherwise than in UTF-8, or does not sync what it acknowledges.
        StoreUnavailableError: They can't be read.
    """
    with postgres_errors():
        found = connection.execute(_FACTS).fetchone()
    if found is None:
        raise StoreUnavailableError
    version, fsync, level, standbys, timeline, encoding = found
    if version < _LEAST_VERSION:
        raise ConfigurationError(
            f"The database server is PostgreSQL {version // 10000}; 14 or newer is "
            "required."
        )
    if fsync != "on":
        raise ConfigurationError(
            "The database server has fsync off and could lose acknowledged changes. "
            "Set it to on."
        )
    if level not in _DURABLE:
        raise ConfigurationError(
            f"The database server has synchronous_commit {level} and could lose "
            "acknowledged changes. Set it to on or remote_apply."
        )
    if encoding != "UTF8":
        raise ConfigurationError(
            f"The database has the encoding {encoding}; UTF8 is required."
        )
    return ServerFacts(version, timeline, bool(standbys.strip()))


@contextmanager
def postgres_errors() -> Iterator[None]:
    """Turn every error of the driver in a block into one of ours."""
    driver = _driver("store")
    try:
        yield
    except driver.errors as error:
        raise own_error(error) from error


def _driver(field: str) -> Any:
    try:
        from hsm_core._internal.stores.postgresql import driver
    except ImportError as error:
        raise ConfigurationError(
            f"{field}: stores on PostgreSQL need psycopg, which is not installed. "
            "Install hsm-core[postgresql].",
            field=field,
        ) from error
    return driver


_FULL: Final = frozenset({"53100", "53200"})
"""disk_full, out_of_memory."""
_AGAIN: Final = frozenset({"40001", "40P01"})
"""serialization_failure, deadlock_detected."""
_UNIQUE: Final = "23505"
_REFUSED: Final = ("08", "25", "28", "53", "55", "57", "58", "3D")
"""
Classes of states that say that something can't be done now.

25 is a server that became read-only, 28 a login that is refused, 57 an administrator
who ends sessions.
"""


def own_error(error: Exception) -> HSMError:
    """
    Return the error that callers get for one of the driver's.

    A table, column or constraint that is not as we made it is damage.
    """
    state = str(getattr(error, "sqlstate", None) or "")
    if state in _FULL:
        return StorageFullError()
    if state in _AGAIN:
        return TransactionConflictError()
    if state == _UNIQUE:
        return ConflictError("Another node made the same change.")
    if not state:
        if not isinstance(error, _driver("store").lost):
            return IntegrityError("The database holds an unreadable value.")
        return ConnectionLostError("The database does not answer.")
    if state.startswith(_REFUSED):
        if state.startswith(("08", "57")):
            return ConnectionLostError("The database does not answer.")
        return StoreUnavailableError()
    return IntegrityError("The database is damaged.")


def constraint_of(error: BaseException | None) -> str:
    """Return the name of the constraint that a statement violated, or nothing."""
    found: object = getattr(getattr(error, "diag", None), "constraint_name", None)
    return found if isinstance(found, str) else ""


def commit(connection: ServerConnection) -> None:
    """
    Commit the transaction of a connection, and know that it was.

    Raises:
        UnsettledError: It may have been committed, here or on the standby, or may be
            later: no answer came, or one with a warning. The connection is closed.
        HSMError: It was rolled back.
    """
    connection.warnings.clear()
    last, connection.with_commit = connection.with_commit, []
    sent: list[Cursor[Row]] = []
    is_requested = False
    try:
        with connection.pipeline():
            for statement, values in last:
                sent.append(run(connection, statement, values))
            is_requested = True
            # Prepared, it would not be seen as one by those who follow connections.
            done = connection.execute("COMMIT", prepare=False)
    except BaseException as error:
        connection.abandon()
        if isinstance(error, Exception):
            if not is_requested or _is_refusal(error, sent):
                raise own_error(error) from error
        raise UnsettledError from error
    if connection.warnings:
        connection.abandon()
        raise UnsettledError
    if done.statusmessage != "COMMIT":
        raise StoreUnavailableError


def _is_refusal(error: Exception, sent: Sequence[Cursor[Row]]) -> bool:
    """Return whether a commit failed so that nothing of it was, or will be, made."""
    state = str(getattr(error, "sqlstate", None) or "")
    # A server that refused a commit says in which state, and has rolled back.
    if state[:2] in {"23", "40"}:
        return True
    # It skips everything behind a statement that it refused, and so the COMMIT.
    was_skipped = not all(cursor.statusmessage for cursor in sent)
    return bool(state) and not state.startswith(("08", "57")) and was_skipped


def no_statements() -> None:
    """Execute no further statements."""


def run_with_commit(
    connection: ServerConnection, statement: str, values: Sequence[object]
) -> None:
    """
    Execute a statement of a transaction last, in one write with its COMMIT.

    It shortens the wait for what the transaction has locked.
    """
    connection.with_commit.append((statement, values))


def roll_back(connection: ServerConnection) -> None:
    """Roll back what a connection has begun; close it if that fails."""
    connection.with_commit = []
    with suppress(Exception):
        if connection.is_idle:
            return
        connection.execute("ROLLBACK")
        return
    connection.abandon()


def run(
    connection: ServerConnection, statement: str, values: Sequence[object] = ()
) -> Cursor[Row]:
    """Execute a statement that is put together from our own texts."""
    return connection.execute(statement.encode(), values)
