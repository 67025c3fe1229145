# SPDX-License-Identifier: MIT
"""
A key store in a SQLite database: documents, blobs, index and account in one place.

A change is one transaction, with everything that it changes in it, so nothing has to be
put right after a crash.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from hsm_core._internal.lib.failpoints import failpoint
from hsm_core._internal.stores import naming
from hsm_core._internal.stores.sqlite import key_index
from hsm_core._internal.stores.sqlite.account import keep, read_all, write_all
from hsm_core._internal.stores.sqlite.connection import (
    UnreadableValueError,
    UnsettledCommitError,
)
from hsm_core._internal.stores.sqlite.database import Database, Row
from hsm_core._internal.stores.sqlite.key_rows import (
    BY_CLAIM,
    BY_ID,
    NUMBERED,
    is_listed,
    read_entry,
    untrusted_entry,
)
from hsm_core._internal.stores.sqlite.listing import (
    Listing,
    list_anew,
    unlisted_keys,
)
from hsm_core._internal.stores.sqlite.places import find_page
from hsm_core._internal.stores.sqlite.schema import KEYS_SCHEMA, VERSION_BITS
from hsm_core._internal.stores.sqlite.uses import SqliteUseCounters
from hsm_core.errors import (
    ConflictError,
    IntegrityError,
    KeyNotFoundError,
    KeyTamperedError,
    OutcomeUnknownError,
)
from hsm_core.model import Integrity, KeyId
from hsm_core.protocols import (
    BUCKETS,
    IndexEntry,
    IndexPage,
    IndexQuery,
    KeyChange,
    KeyDigest,
    KeyStore,
    OperationMark,
    StoreAccount,
    StoredKey,
)

_ROWS_AT_ONCE: Final = 256
_DOCUMENT: Final = (
    "SELECT d.document FROM keys AS k "
    "LEFT JOIN documents AS d ON d.n = k.n WHERE k.key_id = ?"
)
_BLOB: Final = (
    "SELECT b.blob FROM keys AS k "
    "JOIN blobs AS b ON b.id = ((k.n << ?) | ?) WHERE k.key_id = ?"
)
_LISTED: Final = "SELECT 1 FROM keys WHERE key_id = ? AND created_at NOT NULL"
_MARK: Final = (
    "SELECT k.key_id FROM operations AS o JOIN keys AS k ON k.n = o.n "
    "WHERE o.operation_id = ?"
)
_DIGESTS: Final = (
    "SELECT key_id, generation, digest FROM keys "
    "WHERE key_id > ? AND key_id < ? AND created_at NOT NULL "
    "ORDER BY key_id LIMIT ?"
)
# A value with other characters is not one of ours, and may not be text.
_READABLE_DIGESTS: Final = (
    "SELECT key_id, generation, iif(digest GLOB '*[^0-9a-f]*', NULL, digest) FROM keys "
    "WHERE key_id > ? AND key_id < ? AND created_at NOT NULL "
    "AND key_id NOT GLOB '*[^0-9a-f-]*' ORDER BY key_id LIMIT ?"
)
_DISCARD: Final = (
    "DELETE FROM blobs WHERE id = (SELECT (n << ?) | ? FROM keys WHERE key_id = ?)"
)


class SqliteKeyStore(KeyStore):
    """
    Documents and blobs as rows of one database.

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
        uses: Use counters in the same database, open as long as the store is.
    """

    def __init__(self, path: Path) -> None:
        self.database = Database(path, KEYS_SCHEMA)
        self.uses = SqliteUseCounters(self.database)
        self._unlisted: set[KeyId] = set()

    def __repr__(self) -> str:
        return f"<SqliteKeyStore {str(self.database.path)!r}>"

    @property
    def available(self) -> bool:
        """Whether it is open, and no write has failed."""
        return self.database.available

    def reopen(self) -> None:
        """See `KeyStore.reopen`."""
        self.database.reopen()

    # Documents and blobs

    def get(self, key_id: KeyId, /) -> StoredKey:
        """
        Return a key's document.

        Raises:
            KeyNotFoundError: There is no such key.
            KeyTamperedError: There is, and its document is gone or no document.
        """
        if not naming.is_key_id(key_id):
            raise KeyNotFoundError
        try:
            found = self.database.row(_DOCUMENT, (key_id,))
        except UnreadableValueError:
            found = ("",)
        if found is None:
            raise KeyNotFoundError
        document: object = found[0]
        if isinstance(document, bytes):
            return StoredKey(key_id, document)
        if document is None and not self._lists(key_id):
            raise KeyNotFoundError
        is_gone = document is None
        raise KeyTamperedError(
            f"The document of key {key_id} is {'missing' if is_gone else 'damaged'}.",
            key_id=key_id,
            integrity=(Integrity.MISSING if is_gone else Integrity.TAMPERED).value,
        )

    def _lists(self, key_id: KeyId) -> bool:
        found = self.database.row(_LISTED, (key_id,))
        return found is not None

    def get_blob(self, key_id: KeyId, version: int, /) -> bytes | None:
        """Return the sealed blob of a version, or None if there is none."""
        if not naming.is_key_id(key_id) or not 0 < version < 1 << VERSION_BITS:
            return None
        try:
            found = self.database.row(_BLOB, (VERSION_BITS, version, key_id))
        except UnreadableValueError:
            return b""
        if found is None:
            return None
        blob: object = found[0]
        return blob if isinstance(blob, bytes) else b""

    def commit(self, change: KeyChange, /) -> None:
        """Make one change; see `KeyStore.commit`."""
        naming.check_change(change)
        try:
            self._commit(change)
            failpoint("store.after_document")
        except UnsettledCommitError as error:
            raise OutcomeUnknownError(
                "The outcome of the change is unknown; reopen the store.",
                operation_id=change.operation_id,
            ) from error

    def _commit(self, change: KeyChange) -> None:
        with self.database.transaction() as connection:
            key_index.check(connection, change)
            number = key_index.put(connection, change.entry)
            failpoint("store.before_blobs")
            first = number << VERSION_BITS
            for version, blob in change.blobs.items():
                adding = connection.execute(
                    "INSERT OR IGNORE INTO blobs (id, blob) VALUES (?, ?)",
                    (first | version, blob),
                )
                if not adding.rowcount:
                    raise ConflictError(
                        f"The sealed blob of version {version} is immutable and "
                        "can't be replaced."
                    )
            failpoint("store.after_blobs")
            connection.execute(
                "INSERT OR REPLACE INTO documents (n, document) VALUES (?, ?)",
                (number, change.document),
            )
            for version in change.removed_blobs:
                connection.execute("DELETE FROM blobs WHERE id = ?", (first | version,))
            if change.account is not None:
                keep(connection, change.account)
            failpoint("store.before_document")

    def discard_blobs(self, key_id: KeyId, versions: Sequence[int], /) -> None:
        """Delete blobs of destroyed versions, where there are any."""
        wanted = [n for n in versions if 0 < n < 1 << VERSION_BITS]
        with self.database.transaction() as connection:
            connection.executemany(
                _DISCARD, [(VERSION_BITS, version, key_id) for version in wanted]
            )

    def scan(self) -> Iterator[StoredKey]:
        """
        Return every key that was there when the walk began.

        A key whose document is gone, or none of ours, comes with an empty one.
        """
        listing = Listing()
        for stored in self._scan():
            with self.database.reading() as connection:
                if not listing.leads_to(connection, stored.key_id):
                    self._unlisted.add(stored.key_id)
            if stored.key_id in self._unlisted:
                stored = replace(stored, is_listed=False)
            yield stored

    def _scan(self) -> Iterator[StoredKey]:
        last = -(2**63)
        while page := self.database.rows(NUMBERED, (last, _ROWS_AT_ONCE)):
            last = page[-1][0]
            for _, key_id in page:
                if isinstance(key_id, str) and naming.is_key_id(key_id):
                    yield from self._stored(KeyId(key_id))

    def _stored(self, key_id: KeyId) -> Iterator[StoredKey]:
        try:
            yield self.get(key_id)
        except KeyNotFoundError:
            return
        except KeyTamperedError:
            yield StoredKey(key_id, b"")

    # The index

    def entry(self, reference: str, /) -> IndexEntry | None:
        """
        Return the index entry of a key by id, or by name if not destroyed.

        Raises:
            KeyTamperedError: What the index has of it makes no sense.
        """
        found = None
        try:
            if naming.is_key_id(reference):
                found = self.database.row(BY_ID, (reference,))
            if found is None or not is_listed(found):
                found = self.database.row(BY_CLAIM, (reference,))
        except UnicodeEncodeError:
            return None
        except UnreadableValueError as error:
            raise KeyTamperedError(
                "The index of the key store was tampered with."
            ) from error
        return None if found is None else read_entry(found)

    def find(self, query: IndexQuery, /) -> IndexPage:
        """Return a page of the index."""
        with self.database.reading() as connection:
            return find_page(connection, query)

    def digests(self, bucket: int | None = None, /) -> Iterator[KeyDigest]:
        """Return what the index says of all keys, or of those of one bucket."""
        last, end = ("", "g") if bucket is None else _bounds(bucket)
        while page := self._digests_behind(last, end):
            last = page[-1][0]
            for key_id, generation, digest in page:
                if naming.is_key_id(key_id):
                    yield _digest_of(KeyId(key_id), generation, digest)

    def _digests_behind(self, last: str, end: str) -> list[Row]:
        values = (last, end, _ROWS_AT_ONCE)
        try:
            return self.database.rows(_DIGESTS, values)
        except UnreadableValueError:
            return self.database.rows(_READABLE_DIGESTS, values)

    def refresh(self, key_id: KeyId, /) -> IndexEntry | None:
        """Read a key's document again; see `KeyStore.refresh`."""
        with self.database.transaction() as connection:
            try:
                document = self.get(key_id).document
            except KeyNotFoundError:
                return None
            except KeyTamperedError as error:
                if error.facts["integrity"] == Integrity.MISSING.value:
                    key_index.remove(connection, key_id)
                    return None
                document = b""
            entry = untrusted_entry(key_id, document)
            key_index.put(connection, entry)
            return entry

    def correct(self, entry: IndexEntry, /) -> None:
        """Put the index right for a key; see `KeyStore.correct`."""
        with self.database.transaction() as connection:
            if self._lists(entry.key_id):
                key_index.put(connection, entry)
                if entry.key_id in self._unlisted:
                    self._list(connection, entry)

    def _list(self, connection: sqlite3.Connection, entry: IndexEntry) -> None:
        if not Listing().leads_to(connection, entry.key_id):
            # A scan still says of each of the others that its rows were false.
            self._unlisted |= unlisted_keys(connection)
            list_anew(connection, entry)
        self._unlisted.discard(entry.key_id)

    def rebuild(self) -> None:
        """Rebuild the index from all documents."""
        with self.database.transaction() as connection:
            key_index.replace_all(
                connection,
                (untrusted_entry(s.key_id, s.document) for s in self._scan()),
            )

    def reindex(self, entries: Sequence[IndexEntry], /) -> None:
        """Replace the index; see `KeyStore.reindex`."""
        with self.database.transaction() as connection:
            key_index.replace_all(connection, entries)

    # Operation ids

    def find_operation(self, operation_id: str, /) -> OperationMark | None:
        """Return where an operation id stands."""
        found = self.database.row(_MARK, (operation_id,))
        if found is not None:
            return OperationMark(key_id=KeyId(found[0]), aborted=False)
        statement = "SELECT 1 FROM aborted WHERE operation_id = ?"
        if self.database.row(statement, (operation_id,)) is not None:
            return OperationMark(key_id=None, aborted=True)
        return None

    def abort(self, operation_id: str, /) -> None:
        """Mark an operation id as aborted; see `KeyStore.abort`."""
        naming.check_operation_id(operation_id)
        with self.database.transaction() as connection:
            key_index.check_abort(connection, operation_id)
            connection.execute(
                "INSERT OR IGNORE INTO aborted (operation_id) VALUES (?)",
                (operation_id,),
            )

    # The rest

    def read_account(self) -> StoreAccount | None:
        """Return the account as of the last commit; None if none was ever kept."""
        with self.database.reading() as connection:
            return read_all(connection)

    def write_account(self, account: StoreAccount, /) -> None:
        """Replace the account, durably."""
        with self.database.transaction() as connection:
            write_all(connection, account)

    def read_meta(self, name: str, /) -> bytes | None:
        """
        Return a small named value.

        Raises:
            IntegrityError: What lies there is no byte string.
        """
        naming.check_meta_name(name)
        found = self.database.row("SELECT value FROM meta WHERE name = ?", (name,))
        if found is None:
            return None
        if not isinstance(found[0], bytes):
            raise IntegrityError("A stored value was tampered with.")
        return found[0]

    def write_meta(self, name: str, value: bytes, /) -> None:
        """Replace a small named value; after an error either of both may be there."""
        naming.check_meta_name(name)
        with self.database.transaction() as connection:
            connection.execute(
                "INSERT OR REPLACE INTO meta (name, value) VALUES (?, ?)", (name, value)
            )

    def close(self) -> None:
        """Close the database and release the lock."""
        self.database.close()


def _bounds(bucket: int) -> tuple[str, str]:
    return f"{bucket:03x}", f"{bucket + 1:03x}" if bucket + 1 < BUCKETS else "g"


def _digest_of(key_id: KeyId, generation: object, digest: object) -> KeyDigest:
    # What we don't write is no generation and no digest of any document.
    return KeyDigest(
        key_id,
        generation if isinstance(generation, int) else -1,
        digest if isinstance(digest, str) else "",
    )
