# SPDX-License-Identifier: MIT
"""
Records in a database that several nodes share, and the stores over them.

A change is one transaction, with everything that it changes in it. Other nodes change
the same rows: a change locks the row of its key first, so that what it then reads of
the key holds until it is committed; operation ids and names are unique by the
database's own constraints.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

from hsm_core._internal.keyring.documents import (
    MAX_DOCUMENT_BYTES,
    document_digest,
    is_key_id,
)
from hsm_core._internal.lib.failpoints import failpoint
from hsm_core._internal.stores.approval_rows import values_of
from hsm_core._internal.stores.approvals import (
    RecordApprovalStore,
    check_approval_change,
)
from hsm_core._internal.stores.index_rows import ACCOUNT_SEAL, account_of
from hsm_core._internal.stores.keys import RecordKeyStore
from hsm_core._internal.stores.postgresql.approval_rows import (
    PUT_APPROVAL,
    ClusterApprovalRows,
)
from hsm_core._internal.stores.postgresql.connection import (
    TransactionConflictError,
    constraint_of,
    run,
)
from hsm_core._internal.stores.postgresql.database import ClusterDatabase
from hsm_core._internal.stores.postgresql.feed import (
    APPROVAL,
    KEY,
    Change,
    ChangeFeed,
    NoFeed,
    keep_account,
)
from hsm_core._internal.stores.postgresql.key_index import ClusterKeyRows
from hsm_core._internal.stores.postgresql.use_counters import PostgresUseCounters
from hsm_core._internal.stores.records import (
    ABORTED,
    APPROVALS,
    KEYS,
    META,
    USES,
    Commit,
    DamagedRecordError,
    Records,
    check_meta_name,
    document_name,
    key_of,
    unknown_outcome,
    version_of,
)
from hsm_core.errors import (
    ConflictError,
    GenerationConflictError,
    NameTakenError,
    OperationAbortedError,
    StoreUnavailableError,
)
from hsm_core.model import KeyId
from hsm_core.protocols import ApprovalChange, ApprovalEntry, StoreAccount, StoredKey

if TYPE_CHECKING:
    from psycopg import Cursor

    from hsm_core._internal.stores.index_rows import Row
    from hsm_core._internal.stores.postgresql.driver import ServerConnection

_ATTEMPTS: Final = 4


def _reading(value: str, table: str, column: str) -> str:
    # A longer value is none of ours, and no room is made for it.
    return (
        f"SELECT CASE WHEN octet_length({value}) <= $2 THEN {value} END "  # noqa: S608
        f"FROM {table} WHERE {column} = $1"
    )


_READ: Final = {
    USES: _reading("value", "uses", "material_id"),
    META: _reading("value", "meta", "name"),
    APPROVALS: _reading("record", "approvals", "approval_id"),
    ABORTED: (
        "SELECT 'aborted'::bytea FROM operations "
        "WHERE operation_id = $1 AND aborted AND $2::integer IS NOT NULL"
    ),
}
_DOCUMENT: Final = _reading("document", "keys", "key_id") + " AND document IS NOT NULL"
_LISTED: Final = _DOCUMENT + " AND created_at IS NOT NULL"
_BLOB: Final = _reading("blob", "blobs", "key_id") + " AND version = $3"
_LIST: Final = {
    USES: "SELECT material_id FROM uses",
    APPROVALS: "SELECT approval_id FROM approvals",
}
_PUT: Final = {
    USES: "INSERT INTO uses (material_id, value) VALUES ($1, $2) "
    "ON CONFLICT (material_id) DO UPDATE SET value = $2",
    META: "INSERT INTO meta (name, value) VALUES ($1, $2) "
    "ON CONFLICT (name) DO UPDATE SET value = $2",
}
_DELETE: Final = {
    USES: "DELETE FROM uses WHERE material_id = $1",
    APPROVALS: "DELETE FROM approvals WHERE approval_id = $1",
}
_DELETE_APPROVALS: Final = "DELETE FROM approvals WHERE approval_id = ANY ($1)"
_ABORT: Final = (
    "INSERT INTO operations (operation_id, aborted) VALUES ($1, true) "
    "ON CONFLICT (operation_id) DO UPDATE SET aborted = operations.aborted "
    "RETURNING aborted"
)
"""Waits for a transaction that has inserted the id and is not committed yet."""
_LOCK_KEY: Final = (
    "INSERT INTO keys (key_id) VALUES ($1) "
    "ON CONFLICT (key_id) DO UPDATE SET key_id = EXCLUDED.key_id "
    "RETURNING created_at IS NOT NULL, generation"
)
_OPERATION: Final = (
    "INSERT INTO operations (operation_id, key_id) VALUES ($1, $2) "
    "ON CONFLICT (operation_id) DO NOTHING"
)
_PUT_BLOBS: Final = (
    "INSERT INTO blobs (key_id, version, blob) "
    "SELECT $1, unnest($2::integer[]), unnest($3::bytea[]) ON CONFLICT DO NOTHING"
)
_DROP_BLOBS: Final = (
    "DELETE FROM blobs WHERE key_id = $1 AND version = ANY ($2::integer[])"
)
_ADD_META: Final = (
    "INSERT INTO meta (name, value) VALUES ($1, $2) ON CONFLICT (name) DO NOTHING"
)
_PUT_DOCUMENT: Final = (
    "UPDATE keys SET document = $2 WHERE key_id = $1 "
    "RETURNING claim IS NULL AND name <> '' AND state <> 'destroyed'"
)


class ClusterRecords(Records):
    """
    Records as rows of the database of a cluster.

    Args:
        database: Of the cluster.

        closes: Whether the database is closed with the records.

    Attributes:
        feed: What each change of a key is added to.
    """

    def __init__(self, database: ClusterDatabase, *, closes: bool = True) -> None:
        self._database = database
        self._closes = closes
        self._is_closed = False
        self.feed: ChangeFeed = NoFeed()

    def __repr__(self) -> str:
        return f"<ClusterRecords {self._database.location.name!r}>"

    def check_usable(self) -> None:
        """See `Records.check_usable`."""
        if self._is_closed:
            raise StoreUnavailableError("The store is closed.")
        self._database.check_usable()

    @contextmanager
    def writing(self) -> Iterator[None]:
        """See `Records.writing`; other nodes write at the same time."""
        self.check_usable()
        with self._database.transaction(join=True):
            yield

    def read(self, name: str, /, most: int = MAX_DOCUMENT_BYTES) -> bytes | None:
        """See `Records.read`."""
        return self._read(name, most)

    def _read(self, name: str, most: int, lock: str = "") -> bytes | None:
        folder, last = _split(name)
        if folder != KEYS:
            found = self._database.row(_READ[folder], (last, most))
        elif name == document_name(key_of(name)):
            found = self._database.row(_DOCUMENT + lock, (key_of(name), most))
        else:
            values = (key_of(name), most, version_of(name))
            found = self._database.row(_BLOB, values)
        if found is None:
            return None
        if not isinstance(found[0], bytes):
            raise DamagedRecordError("A stored value was tampered with.")
        return found[0]

    def read_documents(
        self, key_ids: Iterable[KeyId], /, *, again: bool = False
    ) -> Iterator[tuple[KeyId, bytes | None]]:
        """Return documents of keys; those that are only looked at are not locked."""
        if again:
            yield from super().read_documents(key_ids, again=True)
            return
        for key_id in key_ids:
            self.check_usable()
            yield key_id, self.stored(document_name(key_id))

    def read_again(self, name: str, /) -> bytes | None:
        """Return a document, which nobody changes until the transaction ends."""
        try:
            return self._read(name, MAX_DOCUMENT_BYTES, " FOR UPDATE")
        except DamagedRecordError:
            return b""

    def ids(self, folder: str, /) -> list[str]:
        """Return ids; of keys and abort marks the index has the only list."""
        if folder not in _LIST:
            return []
        return [found for (found,) in self._database.rows(_LIST[folder])]

    def commit(self, commit: Commit, /) -> None:
        """See `Records.commit`."""
        for _ in range(_ATTEMPTS - 1):
            try:
                return self._commit(commit)
            except TransactionConflictError:
                continue
        return self._commit(commit)

    def _commit(self, commit: Commit) -> None:
        try:
            with self._database.transaction() as connection:
                self.check_tenure(commit)
                _write(connection, commit, self.feed)
        except ConflictError as error:
            if constraint_of(error.__cause__) == "keys_claim":
                raise NameTakenError from error
            raise
        failpoint("store.after_document")
        self.feed.committed()

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
        """See `Records.put`; what is first is as durable as the rest."""
        folder, last = _split(name)
        with self._database.transaction(join=True) as connection:
            if entry is not None:
                values = (*values_of(entry), data)
                if not connection.execute(PUT_APPROVAL, values).rowcount:
                    raise _approval_moved()
            elif folder == ABORTED:
                if connection.execute(_ABORT, (last,)).fetchone() != (True,):
                    raise ConflictError("The operation was already committed.")
            elif folder == META:
                # A process that was fenced writes nothing over what its heir has.
                put = partial(run, connection, _PUT[META], (last, data))
                self.feed.begin(connection, put)
            else:
                run(connection, _PUT[folder], (last, data))
            made()

    def delete(
        self, names: Sequence[str], /, gone: Callable[[str], None] = lambda name: None
    ) -> None:
        """See `Records.delete`."""
        with self._database.transaction(join=True) as connection:
            for name in names:
                folder, last = _split(name)
                if folder == KEYS:
                    connection.execute(_DROP_BLOBS, (key_of(name), [version_of(name)]))
                else:
                    run(connection, _DELETE[folder], (last,))
                gone(name)

    def read_account(self) -> StoreAccount | None:
        """Return the account, or None if nothing of one is there."""
        rows = self._database.rows("SELECT bucket, value FROM account")
        sealed = self._database.row(
            "SELECT value FROM meta WHERE name = $1", (ACCOUNT_SEAL,)
        )
        return account_of(rows, sealed)

    def write_account(self, account: StoreAccount, /) -> None:
        """Replace the whole account, durably."""
        with self._database.transaction(join=True) as connection:
            connection.execute("DELETE FROM account")
            connection.execute(
                "INSERT INTO account (bucket, value) "
                "SELECT n - 1, value FROM unnest($1::bytea[]) "
                "WITH ORDINALITY AS sums (value, n)",
                (list(account.values),),
            )
            run(connection, _PUT[META], (ACCOUNT_SEAL, account.seal))

    def reopen(
        self,
        again: Callable[[str, bytes | None], None],
        every: Callable[[], None] = lambda: None,
        /,
    ) -> None:
        """Check that the database answers; nothing is kept here that could be old."""
        self._database.reopen()

    def close(self) -> None:
        """Answer nothing more."""
        self._is_closed = True
        if self._closes:
            self._database.close()


def _split(name: str) -> tuple[str, str]:
    folder, slash, last = name.partition("/")
    return folder + slash, last


def _write(connection: ServerConnection, commit: Commit, feed: ChangeFeed) -> None:
    key_id = key_of(commit.name)
    _lock_key(connection, commit, feed)
    _put_records(connection, commit, feed)
    account = commit.account() if commit.account is not None else None
    if account is not None:
        keep_account(connection, account)
    digest = document_digest(commit.data)
    change = Change(KEY, key_id, commit.generation, commit.counted, digest)
    feed.append(connection, change)
    failpoint("store.before_document")


def _lock_key(connection: ServerConnection, commit: Commit, feed: ChangeFeed) -> None:
    """Lock the row of a key, and check that a change of it may be made."""
    key_id = key_of(commit.name)
    sent: list[Cursor[Row]] = []

    def lock() -> None:
        sent.append(connection.execute(_LOCK_KEY, (key_id,)))
        if commit.operation_id:
            values = (commit.operation_id, key_id)
            sent.append(connection.execute(_OPERATION, values))

    feed.begin(connection, lock)
    is_listed, generation = sent[0].fetchone() or (False, None)
    expected = commit.expected_generation
    is_expected = generation == expected > 0 if is_listed else expected == 0
    if not is_expected or not all(each.rowcount for each in sent):
        commit.check()  # Says why.
        raise OperationAbortedError("The operation id was already used.")


def _put_records(
    connection: ServerConnection, commit: Commit, feed: ChangeFeed
) -> None:
    """Write blobs, document and index of a key, and lock the feed, in one write."""
    key_id = key_of(commit.name)
    sent: list[Cursor[Row]] = []

    def put() -> None:
        commit.made()
        failpoint("store.before_blobs")
        if commit.before:
            versions = [version_of(name) for name in commit.before]
            blobs = list(commit.before.values())
            sent.append(connection.execute(_PUT_BLOBS, (key_id, versions, blobs)))
        failpoint("store.after_blobs")
        sent.append(connection.execute(_PUT_DOCUMENT, (key_id, commit.data)))
        if commit.after:
            versions = [version_of(name) for name in commit.after]
            connection.execute(_DROP_BLOBS, (key_id, versions))

    # The feed is locked last, so that other nodes wait for nothing but these writes.
    feed.lock(connection, put)
    *blobs, document = sent
    if sum(added.rowcount for added in blobs) != len(commit.before):
        raise ConflictError("A sealed blob is immutable and can't be replaced.")
    if document.fetchone() == (True,):
        raise NameTakenError


class ClusterKeyStore(RecordKeyStore):
    """
    Key store in the database of a cluster.

    Args:
        database: Closed with the store.

    Attributes:
        database: Where everything lies.
    """

    def __init__(self, database: ClusterDatabase) -> None:
        self.database = database
        self._cluster = ClusterRecords(database)
        super().__init__(self._cluster, ClusterKeyRows(database))
        self.uses = PostgresUseCounters(database)

    def get(self, key_id: KeyId, /) -> StoredKey:
        """Return a key's document; one look-up, if there is nothing odd about it."""
        if is_key_id(key_id):
            found = self.database.row(_LISTED, (key_id, MAX_DOCUMENT_BYTES))
            if found is not None and isinstance(found[0], bytes):
                return StoredKey(key_id, found[0])
        return super().get(key_id)

    def create_meta(self, name: str, value: bytes, /) -> bytes:
        """Store a small value unless another node has; see `KeyStore.create_meta`."""
        check_meta_name(name)
        with self._changing(), self.database.transaction(join=True) as connection:
            connection.execute(_ADD_META, (name, value))
        return self.read_meta(name) or b""

    def follow(self, feed: ChangeFeed) -> None:
        """Add every change from now on to the feed of the cluster."""
        self._cluster.feed = feed


class ClusterApprovalStore(RecordApprovalStore):
    """
    Approval store in the database of a cluster.

    Args:
        database: Left open when the store is closed.

    Attributes:
        database: Where the rows are.
    """

    def __init__(self, database: ClusterDatabase) -> None:
        self.database = database
        self._feed: ChangeFeed | None = None
        self._removal: Callable[[str], Change | None] = lambda _: None
        records = ClusterRecords(database, closes=False)
        super().__init__(records, ClusterApprovalRows(database))

    def follow(self, feed: ChangeFeed, removal: Callable[[str], Change | None]) -> None:
        """
        Add every change from now on to the feed of the cluster.

        Args:
            feed: The feed.

            removal: Returns the change that removes an approval, by what the feed says
                of it; None if it says nothing.
        """
        self._feed, self._removal = feed, removal

    def commit(self, change: ApprovalChange, /) -> None:
        """Make one change, and add it to the feed; see `ApprovalStore.commit`."""
        check_approval_change(change)
        failpoint("approvals.before_record")
        self._run(partial(self._put, change), change.entry.approval_id)
        failpoint("approvals.after_record")

    def remove(self, approval_ids: Sequence[str], /) -> None:
        """Delete approvals, durably, and add that to the feed."""
        if approval_ids:
            self._run(partial(self._delete, list(approval_ids)), approval_ids[0])

    def _run(self, work: Callable[[ServerConnection], None], approval_id: str) -> None:
        self._records.check_usable()
        with unknown_outcome(approval_id=approval_id):
            self.database.run(work)
        if self._feed is not None:
            self._feed.committed()

    def _put(self, change: ApprovalChange, connection: ServerConnection) -> None:
        entry, feed = change.entry, self._feed
        if feed is not None:
            feed.begin(connection)
        self._index.check(change)
        values = (*values_of(entry), change.record)
        if not connection.execute(PUT_APPROVAL, values).rowcount:
            raise _approval_moved()
        if feed is not None:
            feed.lock(connection)
            known = self._removal(entry.approval_id)
            if (known.generation - 1 if known else 0) != change.expected_generation:
                raise _approval_moved()
            before = known.before if known else ""
            digest = hashlib.sha256(change.record).hexdigest()
            made = Change(APPROVAL, entry.approval_id, entry.generation, before, digest)
            feed.append(connection, made)

    def _delete(self, approval_ids: list[str], connection: ServerConnection) -> None:
        feed = self._feed
        if feed is not None:
            feed.begin(connection)
        connection.execute(_DELETE_APPROVALS, (approval_ids,))
        if feed is not None:
            feed.lock(connection)
            for approval_id in approval_ids:
                removal = self._removal(approval_id)
                if removal is not None:
                    feed.append(connection, removal)


def _approval_moved() -> GenerationConflictError:
    return GenerationConflictError(
        "The approval request changed concurrently; try again."
    )
