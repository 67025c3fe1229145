# SPDX-License-Identifier: MIT
"""
Feed of changes: rows of ``changes`` in the order of their commits, and where they end.

Every change of a cluster locks the row ``cluster`` last, so revisions become visible in
their order. Each change has a head, a hash over the head before it and the change; a
feed that was lost and grew again has other heads. Nothing that is read here is trusted:
`hsm_core._internal.cluster.changes` checks it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

import msgspec

from hsm_core._internal.stores.postgresql.connection import (
    no_statements,
    run,
    run_with_commit,
)
from hsm_core.errors import IntegrityError
from hsm_core.protocols import AccountChange

if TYPE_CHECKING:
    from hsm_core._internal.stores.index_rows import Row
    from hsm_core._internal.stores.postgresql.driver import ServerConnection

KEY: Final = "key"
APPROVAL: Final = "approval"
CREDENTIAL: Final = "credential"
RECOVERY: Final = "recovery"
EVERYTHING: Final = "all"
"""What a node that starts again from the account tells itself; it is in no feed."""

HEAD_BYTES: Final = 32
CHANNEL: Final = "ferrohsm_changes"
"""Name under which nodes are notified of a change."""

MOST_CHANGES: Final = 4096
"""Maximum number of changes per read; a node further behind reads the account."""

_HEAD_LABEL: Final = b"hsm-core/change-head/1"
_ENCODER: Final = msgspec.msgpack.Encoder()

_STATE: Final = (
    "c.revision, c.head, c.set_digest, c.approvals_digest, c.trust_digest, c.mac"
)
_STATE_COLUMNS: Final = 6
_LOCK: Final = f"SELECT {_STATE} FROM cluster c FOR UPDATE"  # noqa: S608 (our own text)
_HURRY: Final = "SET LOCAL lock_timeout = 100"
_READ: Final = (
    f"SELECT {_STATE}, f.revision, f.kind, f.subject, f.generation, "  # noqa: S608
    "f.before, f.digest, f.head, CASE WHEN c.trust_digest <> $3 AND "
    "coalesce(f.revision = c.revision, true) THEN (SELECT content FROM trust) END "
    "FROM cluster c LEFT JOIN changes f "
    "ON f.revision > $1 AND f.revision <= c.revision ORDER BY f.revision LIMIT $2"
)
"""The last row has the trust document, if the reader does not know it."""
_ACCOUNT: Final = (
    f"SELECT {_STATE}, "  # noqa: S608
    "(SELECT m.value FROM meta m WHERE m.name = 'Account'), "
    "ARRAY(SELECT a.bucket FROM account a ORDER BY a.bucket), "
    "ARRAY(SELECT a.value FROM account a ORDER BY a.bucket), "
    "(SELECT t.content FROM trust t) FROM cluster c"
)
_WRITE: Final = (
    "WITH moved AS (UPDATE cluster SET revision = $1, head = $2, set_digest = $3, "
    "approvals_digest = $4, trust_digest = $5, mac = $6 "
    "WHERE revision = $7 AND head = $8 RETURNING revision) "
    "INSERT INTO changes (revision, kind, subject, generation, before, digest, head) "
    "VALUES ((SELECT revision FROM moved), $9, $10, $11, $12, $13, $2) "
    "RETURNING pg_notify($14, '')"
)
"""Fails where the row is not the one that was locked: a change has a revision."""
_SEAL: Final = (
    "UPDATE cluster SET set_digest = $1, approvals_digest = $2, trust_digest = $3, "
    "mac = $4"
)
_KEEP_TRUST: Final = (
    "INSERT INTO trust (content) VALUES ($1) "
    "ON CONFLICT (id) DO UPDATE SET content = $1"
)
_KEEP: Final = (
    "WITH sum AS (INSERT INTO account (bucket, value) VALUES ($1, $2) "
    "ON CONFLICT (bucket) DO UPDATE SET value = $2) "
    "INSERT INTO meta (name, value) VALUES ('Account', $3) "
    "ON CONFLICT (name) DO UPDATE SET value = $3"
)
_HEAD: Final = "SELECT head FROM changes WHERE revision = $1"
_FOREIGN: Final = (
    "SELECT max(revision) FROM changes WHERE revision > (SELECT revision FROM cluster)"
)
_NEWEST_RECOVERY: Final = (
    "SELECT revision, head FROM changes WHERE revision < (SELECT max(revision) "
    "FROM changes WHERE kind = 'recovery' AND revision > $1) "
    "ORDER BY revision DESC LIMIT 1"
)
_BEFORE_CHANGE: Final = (
    "SELECT revision, head FROM changes WHERE revision < (SELECT max(revision) "
    "FROM changes WHERE kind = 'key' AND subject = $1 AND generation = $2) "
    "ORDER BY revision DESC LIMIT 1"
)


class Position(NamedTuple):
    """Place in the feed: number of the last change, and its head."""

    revision: int
    head: bytes


BEGINNING: Final = Position(0, bytes(HEAD_BYTES))


class Change(msgspec.Struct, frozen=True):
    """
    A change that every node must know of.

    Attributes:
        kind: What changed: `KEY`, `APPROVAL`, `CREDENTIAL`, or `RECOVERY` of all.
        subject: Its id; empty for all of its kind, which concerns every use.
        generation: That of a key or approval, after the change; the revision of a
            recovery.
        before: SHA-256 of its document before the change, hex; empty if it is new.
        digest: The same after the change; empty if it is gone.
    """

    kind: str
    subject: str = ""
    generation: int = 0
    before: str = ""
    digest: str = ""


class StoredChange(msgspec.Struct, frozen=True):
    """A change as it stands in the feed."""

    position: Position
    change: Change


class FeedState(msgspec.Struct, frozen=True, kw_only=True):
    """
    Row ``cluster``: where the feed ends, and what all keys and approvals add up to.

    Attributes:
        position: The last change.
        set_digest: Set digest of the keys, 32 bytes.
        approvals_digest: Set digest of the approvals, 32 bytes.
        trust_digest: SHA-256 of the trust document; empty if there is none.
        mac: Authenticates the rest.
    """

    position: Position
    set_digest: bytes
    approvals_digest: bytes
    trust_digest: bytes = b""
    mac: bytes = b""

    @property
    def is_new(self) -> bool:
        """Whether no node has ever written it."""
        return self.position == BEGINNING and not self.mac

    @property
    def payload(self) -> bytes:
        """What the MAC covers."""
        return _ENCODER.encode(
            [
                1,
                self.position.revision,
                self.position.head,
                self.set_digest,
                self.approvals_digest,
                self.trust_digest,
            ]
        )


class FeedReading(NamedTuple):
    """
    What was read of the feed, all as of one moment.

    Attributes:
        state: Where it ends.
        changes: Those behind a revision: up to the end, or the first `MOST_CHANGES`.
        trust: The trust document, if it is another than the reader knows.
    """

    state: FeedState
    changes: list[StoredChange]
    trust: bytes | None


class StoredAccount(msgspec.Struct, frozen=True):
    """The account of all keys and the trust document, as of a state of the feed."""

    state: FeedState
    seal: bytes | None
    values: Sequence[bytes]
    trust: bytes | None


class ChangeFeed(Protocol):
    """Feed as the stores use it: what each transaction does last."""

    def begin(
        self,
        connection: ServerConnection,
        then: Callable[[], object] = no_statements,
        /,
    ) -> None:
        """
        Begin a change: keep this node from being fenced until it is committed.

        Args:
            connection: In a transaction that has done nothing yet.

            then: Executes further statements, in the same write; what they find may
                be read when this has returned.

        Raises:
            HSMError: It was fenced.
        """
        ...

    def lock(
        self,
        connection: ServerConnection,
        first: Callable[[], object] = no_statements,
        /,
    ) -> None:
        """
        Lock the row ``cluster``, and apply every change that this node lacks.

        Args:
            connection: In the transaction.

            first: Executes statements before, in the same write.

        Raises:
            HSMLockedError: The feed is not the one that this node has followed.
            StoreUnavailableError: It can't be read, or locked in time.
        """
        ...

    def append(self, connection: ServerConnection, change: Change, /) -> None:
        """
        Add a change behind all others; the transaction has locked the feed.

        It is sent with the COMMIT.
        """
        ...

    def committed(self) -> None:
        """Apply what this thread has appended, now that it is committed."""
        ...


class NoFeed(ChangeFeed):
    """Feed of stores that no node has joined: nobody follows it."""

    def begin(
        self,
        connection: ServerConnection,
        then: Callable[[], object] = no_statements,
        /,
    ) -> None:
        """Execute statements in one write."""
        with connection.pipeline():
            then()

    def lock(
        self,
        connection: ServerConnection,
        first: Callable[[], object] = no_statements,
        /,
    ) -> None:
        """Execute statements in one write; there is nothing to lock."""
        with connection.pipeline():
            first()

    def append(self, connection: ServerConnection, change: Change, /) -> None:
        """Do nothing."""

    def committed(self) -> None:
        """Do nothing."""


def next_position(before: Position, change: Change) -> Position:
    """
    Return the place of a change that follows another one.

    A recovery leaves revisions out: it comes after every change that was lost.
    """
    revision = before.revision + 1
    if change.kind == RECOVERY:
        revision = max(revision, change.generation)
    fields = [
        before.head,
        revision,
        change.kind,
        change.subject,
        change.generation,
        change.before,
        change.digest,
    ]
    payload = _HEAD_LABEL + _ENCODER.encode(fields)
    return Position(revision, hashlib.sha256(payload).digest())


def before_recovery(connection: ServerConnection, after: int) -> Position | None:
    """Return the place before the newest recovery behind a revision, if any."""
    found = run(connection, _NEWEST_RECOVERY, (after,)).fetchone()
    return None if found is None else Position(*found)


def before_change(
    connection: ServerConnection, key_id: str, generation: int
) -> Position | None:
    """Return the place before the change that led to a key's generation, if any."""
    found = run(connection, _BEFORE_CHANGE, (key_id, generation)).fetchone()
    return None if found is None else Position(*found)


def lock_feed(connection: ServerConnection) -> FeedState:
    """Lock the row ``cluster`` until the transaction ends, and return it."""
    return _state(run(connection, _LOCK).fetchone())


def wait_no_more(connection: ServerConnection) -> None:
    """
    Let a transaction that has locked the feed wait no longer for other locks.

    Who has them may be making a change, which waits for the feed.
    """
    run(connection, _HURRY)


def read_feed(
    connection: ServerConnection, after: int, trust_digest: bytes = b""
) -> FeedReading:
    """
    Read the feed.

    Args:
        connection: To the database.

        after: Revision behind which changes are read.

        trust_digest: Digest of the trust document that the reader knows.

    Raises:
        IntegrityError: Something else stands there.
    """
    values = (after, MOST_CHANGES, trust_digest)
    return _feed(run(connection, _READ, values).fetchall())


def read_account(connection: ServerConnection) -> StoredAccount:
    """
    Return account and end of the feed, both as of one moment.

    Raises:
        IntegrityError: Something else stands there.
    """
    row = run(connection, _ACCOUNT).fetchone()
    state = _state(row[:_STATE_COLUMNS] if row else None)
    assert row is not None  # noqa: S101 (for the type checker)
    seal, buckets, values, trust = row[_STATE_COLUMNS:]
    if list(buckets) != list(range(len(buckets))):
        values = ()
    return StoredAccount(state, seal, tuple(values), trust)


def lock_and_read(
    connection: ServerConnection,
    after: int,
    trust_digest: bytes = b"",
    first: Callable[[], object] = no_statements,
) -> FeedReading:
    """
    Lock the row ``cluster``, and read the feed as `read_feed`, in one round trip.

    Args:
        connection: In a transaction.

        after: Revision behind which changes are read.

        trust_digest: See `read_feed`.

        first: Executes further statements before, in the same write.
    """
    with connection.pipeline():
        first()
        run(connection, _LOCK)
        # A statement of its own sees what was committed while the first one waited.
        reading = run(connection, _READ, (after, MOST_CHANGES, trust_digest))
    return _feed(reading.fetchall())


def write_change(
    connection: ServerConnection, before: FeedState, after: FeedState, change: Change
) -> None:
    """Add a change to the feed with the COMMIT; the row ``cluster`` is locked."""
    values = (
        after.position.revision,
        after.position.head,
        after.set_digest,
        after.approvals_digest,
        after.trust_digest,
        after.mac,
        before.position.revision,
        before.position.head,
        change.kind,
        change.subject or None,
        change.generation,
        change.before,
        change.digest,
        CHANNEL,
    )
    run_with_commit(connection, _WRITE, values)


def keep_account(connection: ServerConnection, change: AccountChange) -> None:
    """Write the sum of a bucket and the seal of the account, with the COMMIT."""
    values = (change.bucket, change.value, change.seal)
    run_with_commit(connection, _KEEP, values)


def write_state(connection: ServerConnection, state: FeedState) -> None:
    """Write the row ``cluster`` where it stands."""
    run(
        connection,
        _SEAL,
        (state.set_digest, state.approvals_digest, state.trust_digest, state.mac),
    )


def keep_trust(connection: ServerConnection, content: bytes) -> None:
    """Write the trust document; its digest belongs into the state of the feed."""
    run(connection, _KEEP_TRUST, (content,))


def trust_digest_of(content: bytes | None) -> bytes:
    """Return the digest of a trust document; empty if there is none."""
    return hashlib.sha256(content).digest() if content else b""


def head_at(connection: ServerConnection, revision: int) -> bytes:
    """Return the head of a change; empty if there is none."""
    row = run(connection, _HEAD, (revision,)).fetchone()
    return row[0] if row else b""


def foreign_change(connection: ServerConnection) -> int:
    """Return the revision of a row behind the end of the feed; 0 if there is none."""
    row = run(connection, _FOREIGN).fetchone()
    return row[0] or 0 if row else 0


def listen(connection: ServerConnection) -> None:
    """Let a connection become readable soon after each change."""
    connection.add_notify_handler(lambda _: None)
    run(connection, f"LISTEN {CHANNEL}")


def _feed(rows: list[Row]) -> FeedReading:
    state = _state(rows[0][:_STATE_COLUMNS] if rows else None)
    found = [row[_STATE_COLUMNS:] for row in rows]
    changes = [_change(row[:-1]) for row in found if row[0] is not None]
    return FeedReading(state, changes, found[-1][-1])


def _state(row: Row | None) -> FeedState:
    if row is None:
        raise IntegrityError("The state of the cluster is missing in the database.")
    revision, head, set_digest, approvals_digest, trust_digest, mac = row
    if not all(isinstance(value, bytes) for value in row[1:]):
        raise IntegrityError("The state of the cluster was altered in the database.")
    return FeedState(
        position=Position(revision, head),
        set_digest=set_digest,
        approvals_digest=approvals_digest,
        trust_digest=trust_digest,
        mac=mac,
    )


def _change(row: Row) -> StoredChange:
    revision, kind, subject, generation, before, digest, head = row
    return StoredChange(
        Position(revision, head),
        Change(kind, subject or "", generation, before, digest),
    )
