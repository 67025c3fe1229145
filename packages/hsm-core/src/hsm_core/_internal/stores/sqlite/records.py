# SPDX-License-Identifier: MIT
"""
Records in a SQLite database, and the stores over them.

A change is one transaction, with everything that it changes in it, index and account
too, so nothing has to be put right after a crash.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from hsm_core._internal.keyring.documents import MAX_DOCUMENT_BYTES, is_key_id
from hsm_core._internal.lib.failpoints import failpoint
from hsm_core._internal.stores.approval_rows import ApprovalColumns, values_of
from hsm_core._internal.stores.approvals import RecordApprovalStore
from hsm_core._internal.stores.index_rows import ACCOUNT_SEAL, account_of
from hsm_core._internal.stores.keys import RecordKeyStore
from hsm_core._internal.stores.records import (
    ABORTED,
    APPROVALS,
    KEYS,
    META,
    USES,
    Commit,
    DamagedRecordError,
    Records,
    document_name,
    key_of,
    version_of,
)
from hsm_core._internal.stores.sqlite.connection import Schema
from hsm_core._internal.stores.sqlite.database import Database
from hsm_core._internal.stores.sqlite.key_index import KeyRows
from hsm_core._internal.stores.sqlite.key_rows import KEYS_SCHEMA, VERSION_BITS
from hsm_core.errors import ConflictError
from hsm_core.model import KeyId
from hsm_core.protocols import AccountChange, ApprovalEntry, StoreAccount, StoredKey

if TYPE_CHECKING:
    import sqlite_utils

_READ: Final = {
    USES: "SELECT value FROM uses WHERE material_id = ?",
    META: "SELECT value FROM meta WHERE name = ?",
    APPROVALS: "SELECT record FROM approvals WHERE approval_id = ?",
    ABORTED: "SELECT CAST('aborted' AS BLOB) FROM aborted WHERE operation_id = ?",
}
_LIST: Final = {
    USES: "SELECT material_id FROM uses",
    APPROVALS: "SELECT approval_id FROM approvals",
}
_PUT: Final = {
    USES: "INSERT OR REPLACE INTO uses (material_id, value) VALUES (?, ?)",
    META: "INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)",
    ABORTED: "INSERT OR IGNORE INTO aborted (operation_id) SELECT ?1 WHERE ?2 NOT NULL",
}
_DELETE: Final = {
    USES: "DELETE FROM uses WHERE material_id = ?",
    APPROVALS: "DELETE FROM approvals WHERE approval_id = ?",
}
_DOCUMENT: Final = (
    "SELECT d.document FROM keys AS k "
    "JOIN documents AS d ON d.n = k.n WHERE k.key_id = ?"
)
_LISTED: Final = _DOCUMENT + " AND k.created_at NOT NULL"
_BLOB: Final = (
    "SELECT b.blob FROM keys AS k "
    "JOIN blobs AS b ON b.id = ((k.n << ?) | ?) WHERE k.key_id = ?"
)
_DISCARD: Final = (
    "DELETE FROM blobs WHERE id = (SELECT (n << ?) | ? FROM keys WHERE key_id = ?)"
)


class SqliteRecords(Records):
    """
    Records as rows of one database.

    Args:
        database: Closed with the records.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def __repr__(self) -> str:
        return f"<SqliteRecords {str(self._database.path)!r}>"

    def check_usable(self) -> None:
        """See `Records.check_usable`."""
        self._database.check_usable()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """See `Records.writing`."""
        with self._database.transaction():
            yield

    def read(self, name: str, /, most: int = MAX_DOCUMENT_BYTES) -> bytes | None:
        """See `Records.read`."""
        found = self._database.row(*_reading(name))
        if found is None:
            return None
        value: object = found[0]
        if not isinstance(value, bytes) or len(value) > most:
            raise DamagedRecordError("A stored value was tampered with.")
        return value

    def ids(self, folder: str, /) -> list[str]:
        """Return ids; of keys and abort marks the index has the only list."""
        if folder not in _LIST:
            return []
        rows = self._database.rows(_LIST[folder])
        return [found for (found,) in rows if isinstance(found, str)]

    def commit(self, commit: Commit, /) -> None:
        """See `Records.commit`."""
        with self._database.transaction() as connection:
            self.check_tenure(commit)
            commit.check()
            commit.made()
            _write(connection, commit)
        failpoint("store.after_document")

    def put(
        self,
        name: str,
        data: bytes,
        /,
        *,
        is_first: bool = False,
        entry: ApprovalEntry | None = None,
        made: Callable[[], None] = lambda: None,
    ) -> None:
        """See `Records.put`."""
        folder, last = _split(name)
        # The commit of a key goes into the same log behind a first value, and syncs it.
        with self._database.transaction(durable=not is_first, join=True) as connection:
            if entry is not None:
                connection.execute(PUT_APPROVAL, (*values_of(entry), data))
            else:
                connection.execute(_PUT[folder], (last, data))
            made()

    def delete(
        self, names: Sequence[str], /, gone: Callable[[str], None] = lambda name: None
    ) -> None:
        """See `Records.delete`."""
        with self._database.transaction(join=True) as connection:
            for name in names:
                folder, last = _split(name)
                if folder == KEYS:
                    _discard(connection, name)
                else:
                    connection.execute(_DELETE[folder], (last,))
                gone(name)

    def read_account(self) -> StoreAccount | None:
        """Return the account, or None if nothing of one is there."""
        with self._database.reading() as connection:
            rows = connection.execute("SELECT bucket, value FROM account").fetchall()
            sealed = connection.execute(_READ[META], (ACCOUNT_SEAL,)).fetchone()
        return account_of(rows, sealed)

    def write_account(self, account: StoreAccount, /) -> None:
        """Replace the whole account, durably."""
        with self._database.transaction() as connection:
            connection.execute("DELETE FROM account")
            connection.executemany(
                "INSERT INTO account (bucket, value) VALUES (?, ?)",
                enumerate(account.values),
            )
            connection.execute(_PUT[META], (ACCOUNT_SEAL, account.seal))

    def reopen(
        self,
        again: Callable[[str, bytes | None], None],
        every: Callable[[], None] = lambda: None,
        /,
    ) -> None:
        """Make durable what is there; see `Database.reopen`."""
        self._database.reopen()

    def close(self) -> None:
        """Close the database and release its lock."""
        self._database.close()


def _split(name: str) -> tuple[str, str]:
    folder, slash, last = name.partition("/")
    return folder + slash, last


def _reading(name: str) -> tuple[str, tuple[object, ...]]:
    folder, last = _split(name)
    if folder != KEYS:
        return _READ[folder], (last,)
    key_id = key_of(name)
    if name == document_name(key_id):
        return _DOCUMENT, (key_id,)
    return _BLOB, (VERSION_BITS, version_of(name), key_id)


def _discard(connection: sqlite3.Connection, name: str) -> None:
    connection.execute(_DISCARD, (VERSION_BITS, version_of(name), key_of(name)))


def _write(connection: sqlite3.Connection, commit: Commit) -> None:
    number: int = connection.execute(
        "SELECT n FROM keys WHERE key_id = ?", (key_of(commit.name),)
    ).fetchone()[0]
    failpoint("store.before_blobs")
    for name, blob in commit.before.items():
        adding = connection.execute(
            "INSERT OR IGNORE INTO blobs (id, blob) VALUES (?, ?)",
            (number << VERSION_BITS | version_of(name), blob),
        )
        if not adding.rowcount:
            raise ConflictError("A sealed blob is immutable and can't be replaced.")
    failpoint("store.after_blobs")
    connection.execute(
        "INSERT OR REPLACE INTO documents (n, document) VALUES (?, ?)",
        (number, commit.data),
    )
    for name in commit.after:
        _discard(connection, name)
    if commit.account is not None:
        _keep(connection, commit.account())
    failpoint("store.before_document")


def _keep(connection: sqlite3.Connection, change: AccountChange) -> None:
    connection.execute(
        "INSERT OR REPLACE INTO account (bucket, value) VALUES (?, ?)",
        (change.bucket, change.value),
    )
    connection.execute(_PUT[META], (ACCOUNT_SEAL, change.seal))


class SqliteKeyStore(RecordKeyStore):
    """
    Key store in a SQLite database.

    Args:
        path: Made with mode 0600 if absent, in a directory that is made if absent.

    Raises:
        StoreLockedError: Another process has it open.
        UnsafeFileModeError: Other users may reach it.
        ConfigurationError: It is no key store, or one of a newer program.
        IntegrityError: It is damaged.
        StoreUnavailableError: It can't be made or read.

    Attributes:
        database: Where everything lies; for backups.
    """

    def __init__(self, path: Path) -> None:
        self.database = Database(path, KEYS_SCHEMA)
        super().__init__(SqliteRecords(self.database), KeyRows(self.database))

    def get(self, key_id: KeyId, /) -> StoredKey:
        """Return a key's document; one look-up, if there is nothing odd about it."""
        if is_key_id(key_id):
            try:
                for (found,) in self.database.rows(_LISTED, (key_id,)):
                    if type(found) is bytes and len(found) <= MAX_DOCUMENT_BYTES:
                        return StoredKey(key_id, found)
            except DamagedRecordError:
                pass
        return super().get(key_id)


class SqliteApprovalStore(RecordApprovalStore):
    """
    Approval store in its own SQLite database; errors as of `SqliteKeyStore`.

    Args:
        path: The database; it and its directory are made, private, if absent.

    Attributes:
        database: Where the rows are, for backups and verification.
    """

    def __init__(self, path: Path) -> None:
        self.database = Database(path, APPROVALS_SCHEMA)
        super().__init__(SqliteRecords(self.database), ApprovalRows(self.database))

    def backup(self, to: Path, before_end: Callable[[], None]) -> None:
        """Copy it, in use, into a new file; see `Database.backup`."""
        self.database.backup(to, before_end)


PUT_APPROVAL: Final = (
    "INSERT INTO approvals (approval_id, generation, state, requester, digest, "
    "created_at, closed_at, record) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8) "
    "ON CONFLICT (approval_id) DO UPDATE SET generation = ?2, state = ?3, "
    "requester = ?4, digest = ?5, created_at = ?6, closed_at = ?7, record = ?8"
)
"""Creates or replaces a row: the values of its entry, and its record."""
_SELECT: Final = (
    "SELECT approval_id, generation, state, requester, digest, created_at, closed_at "
    "FROM approvals WHERE typeof(created_at) = 'integer'"
)

_INDEXES: Final = {
    "approvals_state": "state, created_at, approval_id",
    "approvals_requester": "requester, state, created_at, approval_id",
    "approvals_digest": "digest, created_at, approval_id",
    "approvals_order": "created_at, approval_id",
}


def _first(tables: sqlite_utils.Database) -> None:
    tables.execute(
        "CREATE TABLE approvals (n INTEGER PRIMARY KEY, "
        "approval_id TEXT NOT NULL UNIQUE, generation INTEGER NOT NULL, "
        "state TEXT NOT NULL, requester TEXT NOT NULL, digest TEXT NOT NULL, "
        "created_at INTEGER NOT NULL, closed_at INTEGER NOT NULL, "
        "record BLOB NOT NULL) STRICT"
    )
    for name, columns in _INDEXES.items():
        tables.execute(f"CREATE INDEX {name} ON approvals ({columns})")


APPROVALS_SCHEMA: Final = Schema(application_id=0x46484150, steps=(_first,))
"""Approvals: ``FHAP``."""


class ApprovalRows(ApprovalColumns):
    """
    Columns in SQLite, where a place may hold a value of any type.

    Args:
        database: Of an open approval store.
    """

    def __init__(self, database: Database) -> None:
        super().__init__(database, _SELECT)
