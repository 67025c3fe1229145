# SPDX-License-Identifier: MIT
"""
Offline verification of an audit log in SQLite.

It streams, so that memory does not grow with the log, and writes nothing beside it.
Other than a log in files, a database can't be read beside the process that has it
open: then that process must verify it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

from hsm_core._internal.audit.facts import MAX_LINE_BYTES
from hsm_core._internal.audit.head_mark import HEAD_BYTES, HeadCodec, StoredHead
from hsm_core._internal.audit.offline import OfflineVerifier
from hsm_core._internal.audit.reasons import Reason, tampered
from hsm_core._internal.audit.verify import Look, OfflineVerification, verify_log
from hsm_core._internal.stores.audit_rows import StoredRows
from hsm_core._internal.stores.filesystem.audit_files import HEAD
from hsm_core._internal.stores.filesystem.opening import sibling
from hsm_core._internal.stores.sqlite.audit_rows import (
    APPLICATION_ID,
    SCHEMA_VERSION,
    SqliteTables,
    check_beside,
    check_schema,
    translated,
)
from hsm_core.errors import AuditUnavailableError, ConfigurationError, StoreLockedError

_MAGIC: Final = b"SQLite format 3\0"
_CAREFUL: Final = (
    "PRAGMA trusted_schema=OFF",
    "PRAGMA cell_size_check=ON",
    "PRAGMA mmap_size=0",
    "PRAGMA query_only=ON",
)


def is_sqlite_log(path: Path) -> bool:
    """
    Return whether a SQLite database lies here; not while this process has it.

    Raises:
        ConfigurationError: No file can have this name.
    """
    if path.name in {"", ".."} or "\0" in path.name:
        raise ConfigurationError("The audit log must be a file.", path=str(path))
    try:
        if wal_of(path).exists():
            return True
        # A pipe is not waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(descriptor, "rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def wal_of(path: Path) -> Path:
    """Return the path of a database's write-ahead log."""
    return path.with_name(f"{path.name}-wal")


class SqliteAuditVerifier(OfflineVerifier):
    """
    Verifies a log in SQLite that is not in use, without changing it.

    What a crash left in the write-ahead log counts; then database and log are copied
    to a private temporary directory first, for SQLite can't read them without writing.

    Args:
        path: The database.

        hmac_key: None verifies the chain alone, which does not show a forger who
            recomputes it, nor a cut tail.
    """

    def __init__(self, path: Path, hmac_key: bytes | None) -> None:
        self._path = path.absolute()
        self._hmac_key = hmac_key

    def _verified(
        self,
        progress: Callable[[int], None] | None,
        look: Look | None,
        look_from: int = 0,
    ) -> OfflineVerification:
        try:
            with _locked(self._path), read_at_rest(self._path) as connection:
                return self._verify(connection, progress, look, look_from)
        except sqlite3.Error as error:
            raise self._own(translated(error, 0)) from error
        except UnicodeDecodeError as error:
            # So the driver fails to tell what SQLite says of a name that is no text.
            raise tampered(Reason.DATABASE, 0) from error
        except (AuditUnavailableError, OSError) as error:
            raise self._unreadable() from error

    def _own(self, error: Exception) -> Exception:
        if isinstance(error, AuditUnavailableError):
            return self._unreadable()
        return error

    def _unreadable(self) -> ConfigurationError:
        return ConfigurationError(
            f"The audit log {self._path} can't be read.", path=str(self._path)
        )

    def _verify(
        self,
        connection: sqlite3.Connection,
        progress: Callable[[int], None] | None,
        look: Look | None,
        look_from: int,
    ) -> OfflineVerification:
        self._check_kind(connection)
        key = self._hmac_key
        check_schema(connection)
        stored = StoredRows(SqliteTables(connection), key)
        found = verify_log(stored, key, progress, look, look_from)
        beside = None if key is None else _read_beside(self._path, key)
        if stored.head is not None and beside is not None:
            check_beside(connection, beside, stored.head)
        return found

    def _check_kind(self, connection: sqlite3.Connection) -> None:
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if application != APPLICATION_ID:
            raise ConfigurationError(
                f"{self._path} holds no audit log.", path=str(self._path)
            )
        if version > SCHEMA_VERSION:
            raise ConfigurationError(
                f"{self._path} has schema version {version}, written by a newer "
                f"release; this release supports up to {SCHEMA_VERSION}.",
                path=str(self._path),
            )
        if version < 1:
            raise tampered(Reason.DATABASE, 0)


@contextmanager
def read_at_rest(path: Path) -> Iterator[sqlite3.Connection]:
    """
    Give a connection to a database that no process has open; nothing is written there.

    What is in its write-ahead log counts, too; then a copy is read.

    Raises:
        sqlite3.Error: It can't be read.
        OSError: It can't be read.
    """
    wal = wal_of(path)
    if not (wal.exists() and wal.stat().st_size):
        uri = f"{_address(path)}?mode=ro&immutable=1"
        with closing(_connect(uri)) as connection:
            yield connection
        return
    with tempfile.TemporaryDirectory(prefix="ferrohsm-") as folder:
        copy = Path(folder) / "copy"
        shutil.copyfile(path, copy)
        shutil.copyfile(wal, wal_of(copy))
        with closing(_connect(f"{_address(copy)}?mode=rw")) as connection:
            yield connection


def _address(path: Path) -> str:
    return f"file:{quote(os.fsencode(path))}"


def _connect(uri: str) -> sqlite3.Connection:
    connection = sqlite3.connect(uri, uri=True, isolation_level=None)
    try:
        # A row that is too long to be a record must not fill the memory.
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 2 * MAX_LINE_BYTES)
        for statement in _CAREFUL:
            connection.execute(statement)
    except BaseException:
        connection.close()
        raise
    return connection


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    lock = path.with_name(f"{path.name}.lock")
    try:
        descriptor = os.open(lock, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        # A copy, or a log that was moved: nobody can have it open by this name.
        yield
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise StoreLockedError(
            f"{path} is in use. Verify it through the running server: hsm-cli "
            "audit verify.",
            path=str(path),
        ) from None
    finally:
        os.close(descriptor)


def _read_beside(path: Path, hmac_key: bytes) -> StoredHead | None:
    """
    Return the mark beside a database that may belong to anybody; None without one.

    Raises:
        WrongAuditKeyError: It was written with another HMAC key.
        AuditTamperedError: It was changed by other means than ours.
        OSError: It can't be read.
    """
    try:
        with sibling(path, HEAD).open("rb") as file:
            return HeadCodec.read(file.read(HEAD_BYTES + 1), hmac_key)
    except FileNotFoundError:
        return None
