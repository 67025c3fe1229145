# SPDX-License-Identifier: MIT
"""
Changes of all nodes: each node follows their feed, and adds its own to it.

A change is applied once, in the order of revisions, whether this node has made it or
another: set digest, documents, opened keys, names, and last the cells, which end what
was decided before. Only then does `Changes.applied` move. Before a node commits a
change of its own, it applies all others, under the lock that keeps further ones out; so
what it computes and checks then is true of all nodes.

The feed is not trusted: its end has a MAC by the key ring, and heads lead there.
"""

from __future__ import annotations

import hmac
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from msgspec.structs import replace

from hsm_core._internal.cluster.following import (
    FeedFollower,
    FeedWalk,
    key_after,
    key_before,
)
from hsm_core._internal.keyring.repository import KeyRepository
from hsm_core._internal.keyring.stored_keys import FollowedFeed
from hsm_core._internal.lib import silence
from hsm_core._internal.stores.postgresql.connection import (
    TransactionConflictError,
    no_statements,
    run,
)
from hsm_core._internal.stores.postgresql.database import ClusterDatabase
from hsm_core._internal.stores.postgresql.feed import (
    APPROVAL,
    BEGINNING,
    CREDENTIAL,
    EVERYTHING,
    KEY,
    RECOVERY,
    Change,
    ChangeFeed,
    FeedReading,
    FeedState,
    NoFeed,
    Position,
    StoredAccount,
    StoredChange,
    before_change,
    before_recovery,
    foreign_change,
    head_at,
    keep_account,
    keep_trust,
    lock_and_read,
    lock_feed,
    next_position,
    read_account,
    read_feed,
    trust_digest_of,
    wait_no_more,
    write_change,
    write_state,
)
from hsm_core.errors import Fact, HSMLockedError, IntegrityError
from hsm_core.model import KeyId
from hsm_core.protocols import KnownKey, StoreAccount

if TYPE_CHECKING:
    from hsm_core._internal.stores.postgresql.driver import ServerConnection

_MODULUS: Final = 2**256
_DIGEST_BYTES: Final = 32
_FRESH_SECONDS: Final = 2.0
_LEAP: Final = 2**20
"""Revisions that a recovery skips, because other nodes may have seen newer ones."""
_HEARD_AFTER: Final = 2000
_TRUST_LABEL: Final = b"trust"
"""Prefix of what is no `FeedState.payload`, which begins with another byte."""

T = TypeVar("T")


class Changes(ChangeFeed, FollowedFeed):
    """
    Changes of a cluster, as one node knows them. Thread-safe.

    No lock of the audit log, and none that is held while somebody waits for it, is
    taken here, but in `quiet`.

    Args:
        database: Of the cluster.

        inventory: Its keys; opened over the same database.

    Attributes:
        fence: Locks this node's fence for a transaction, and executes what comes with
            it, or raises.
        newest_seen: Returns the newest revision that this node has ever seen.
        applied: The last change that was applied here; an immutable pair.
    """

    def __init__(self, database: ClusterDatabase, inventory: KeyRepository) -> None:
        self.fence: Callable[[ServerConnection, Callable[[], object]], None] = (
            NoFeed().begin
        )
        self._database = database
        self._inventory = inventory
        self._ring = inventory.ring
        self._hooks: dict[str, list[Callable[[Change], None]]] = {}
        self._moved: list[Callable[[Position], None]] = []
        self._lock = threading.RLock()
        self._mine = _Mine()
        self._approvals = 0
        self._trust = _Trust()
        self._on_trust: list[Callable[[bytes], None]] = []
        self._verified: FeedState | None = None
        self._read_at = float("-inf")
        self._walk = FeedWalk(database)
        self._follower = FeedFollower(self.follow, database.location)
        self.newest_seen: Callable[[], int] = lambda: 0
        self.applied = Position(0, b"")

    def __repr__(self) -> str:
        return f"<Changes up to {self.applied.revision}>"

    def on_change(self, kind: str, call: Callable[[Change], None]) -> None:
        """
        Call a function with each change of a kind, before its revision is reached.

        It waits for nothing, and raises nothing.
        """
        self._hooks.setdefault(kind, []).append(call)

    def on_position(self, call: Callable[[Position], None]) -> None:
        """Call a function with each position, immediately before it is reached."""
        self._moved.append(call)

    def on_trust(self, call: Callable[[bytes], None]) -> None:
        """
        Call a function with the trust document, now and when it has changed.

        It is called before the revision of the change is reached. It waits for nothing,
        and raises nothing.
        """
        with self._lock:
            self._on_trust.append(call)
            call(self._trust.document)

    @property
    def revision(self) -> int:
        """Number of the newest change that was applied here."""
        return self.applied.revision

    @property
    def approvals_digest(self) -> bytes:
        """Set digest of all approvals, 32 bytes."""
        return _bytes(self._approvals)

    @property
    def age(self) -> float:
        """Seconds since the end of the feed was last read."""
        return time.monotonic() - self._read_at

    @property
    def is_fresh(self) -> bool:
        """Whether the feed was read within the last two seconds."""
        return self.age <= _FRESH_SECONDS

    # Start

    def start(self) -> str:
        """
        Adopt the account and the position that the database has.

        Returns:
            What is wrong with them; empty if nothing.

        Raises:
            StoreUnavailableError: They can't be read.
        """
        with self._database.transaction() as connection:
            is_new = lock_feed(connection).is_new
            if is_new and next(self._inventory.store.digests(), None) is None:
                self._begin(connection)
            stored = read_account(connection)
        with self._lock:
            problem = self._problem_of(stored)
            if not problem:
                self._adopt(stored)
        return problem

    def _begin(self, connection: ServerConnection) -> None:
        """Seal the state of a cluster that has no change yet."""
        census = self._inventory.census
        census.adopt(census.sums(()), verified=True)
        self._inventory.store.write_account(census.account())
        state = read_account(connection).state
        nothing = bytes(_DIGEST_BYTES)
        state = replace(state, set_digest=nothing, approvals_digest=nothing)
        write_state(connection, self._sealed(state))

    def _problem_of(self, stored: StoredAccount) -> str:
        if not self._is_authentic(stored.state):
            return "The state of the cluster was altered in the database."
        account = StoreAccount(tuple(stored.values), stored.seal or b"")
        sums = self._inventory.census.read(account)
        if sums is None or _bytes(sums.total) != stored.state.set_digest:
            return "The set digest of the keys does not match the state of the cluster."
        if trust_digest_of(stored.trust) != stored.state.trust_digest:
            return (
                "The list of withdrawn trust does not match the state of the cluster."
            )
        return ""

    def _adopt(self, stored: StoredAccount) -> None:
        account = StoreAccount(tuple(stored.values), stored.seal or b"")
        sums = self._inventory.census.read(account)
        assert sums is not None  # noqa: S101 (it was checked)
        self._inventory.follow_all(sums)
        self._approvals = int.from_bytes(stored.state.approvals_digest, "big")
        self._verified = stored.state
        self._adopt_trust(stored.trust)
        for calls in self._hooks.values():
            for call in calls:
                call(Change(EVERYTHING))
        self._reach(stored.state.position)

    def _adopt_trust(self, content: bytes | None) -> None:
        """Take a trust document that was checked; callers hold the lock."""
        trust = _Trust.of(content)
        if trust != self._trust:
            self._trust = trust
            for call in self._on_trust:
                call(trust.document)

    def held(self) -> AbstractContextManager[object]:
        """Return a context within which nothing is applied here."""
        return self._lock

    def begin_following(self) -> None:
        """Follow the feed from now on, in a thread."""
        self._follower.start()

    def close(self) -> None:
        """End that thread; once is enough."""
        self._follower.close()

    # Following

    def forget(self) -> None:
        """
        Forget what was read, which may be ahead of what is applied.

        To be called after a lost connection: a fail-over may have undone changes that
        were read and not yet applied, so that nothing else would tell.
        """
        with self._lock:
            self._inventory.forget_all()

    def catch_up(self) -> Position:
        """
        Apply everything that is committed, and return where that is.

        Raises:
            HSMLockedError: The feed is not the one that this node has followed.
            StoreUnavailableError: It can't be read.
        """
        with silence.task(), self._database.reading() as connection:
            return self.follow(connection)

    def check_head(self) -> None:
        """
        Check that the database still has the change that was applied last.

        No use can be recorded without it, however often it is decided again, nor where
        a row stands behind the end of the feed, which no node has written.

        Raises:
            HSMLockedError: It has not.
            StoreUnavailableError: It can't be read.
        """
        applied = self.applied
        with self._database.reading() as connection:
            if head_at(connection, applied.revision) != applied.head:
                self._refuse("other", read_account(connection).state, applied)
            if revision := foreign_change(connection):
                self._refuse(
                    "foreign", read_account(connection).state, applied, revision
                )

    def follow(self, connection: ServerConnection) -> Position:
        """Apply everything that is committed; see `catch_up`."""
        return self._follow(connection, read_feed)

    def _follow(
        self,
        connection: ServerConnection,
        read: Callable[[ServerConnection, int, bytes], FeedReading],
    ) -> Position:
        start, began = self.applied, time.monotonic()
        reading = read(connection, start.revision, self._trust.digest)
        self._take(connection, start, reading)
        self._read_at = max(self._read_at, began)
        return self.applied

    def _take(
        self,
        connection: ServerConnection,
        start: Position,
        reading: FeedReading,
    ) -> None:
        """Check what was read behind a position, and apply what is new of it."""
        state, changes, trust = reading
        if not changes and state.position == start and state == self._verified:
            return
        if state.position.revision < start.revision:
            self._refuse("older", state, start)
        if not self._is_authentic(state):
            self._refuse("altered", state, start)
        if state.position.revision - start.revision > len(changes):
            self._take_all(connection, start)
            return
        end = start
        for stored in changes:
            end = next_position(end, stored.change)
            if end != stored.position:
                self._refuse("altered", state, start)
        if end != state.position:
            self._refuse("other", state, start)
        with self._lock:
            if any(_is_of_all(stored.change) for stored in changes):
                self._take_all(connection, start)
                return
            if state.position.revision >= self.applied.revision:
                if state.trust_digest != self._trust.digest and trust is None:
                    # Another thread has taken a document that came in between.
                    self._take_all(connection, start)
                    return
                self._take_trust(state, trust, start)
            for stored in changes:
                self._apply(stored.position, stored.change)
            if self.applied == state.position:
                self._check_sums(state, start)
                self._verified = state

    def _take_trust(
        self, state: FeedState, trust: bytes | None, start: Position
    ) -> None:
        """Check the trust document of a state, and take it before its revision."""
        if state.trust_digest == self._trust.digest:
            return
        if trust_digest_of(trust) != state.trust_digest:
            self._refuse("altered", state, start)
        self._adopt_trust(trust)

    def _take_all(self, connection: ServerConnection, start: Position) -> None:
        """Start again from the account, which is cheaper or safer than the changes."""
        with self._lock:
            # Under the lock: else another thread could be ahead of what is read here.
            stored = read_account(connection)
            if head_at(connection, start.revision) != start.head:
                self._refuse("other", stored.state, start)
            problem = self._problem_of(stored)
            if problem or stored.state.position.revision < self.applied.revision:
                self._refuse("altered", stored.state, start)
            self._adopt(stored)

    def _apply(self, position: Position, change: Change) -> None:
        """Apply one change, unless another thread has; callers hold the lock."""
        if position.revision <= self.applied.revision:
            return
        if change.kind == KEY:
            key_id = KeyId(change.subject)
            self._inventory.follow(key_id, key_before(change), key_after(change))
        elif change.kind == APPROVAL:
            self._approvals = self._approvals_after(self._approvals, change)
            self._inventory.tampered.cells.of(change.subject).bump()
        for call in self._hooks.get(change.kind, ()):
            call(change)
        self._reach(position)

    def _reach(self, position: Position) -> None:
        # Nothing is decided under a revision before it is noted.
        for call in self._moved:
            call(position)
        self.applied = position

    def _check_sums(self, state: FeedState, start: Position) -> None:
        digest = bytes.fromhex(self._inventory.census.set_digest)
        if (digest, self.approvals_digest) != (
            state.set_digest,
            state.approvals_digest,
        ):
            self._refuse("altered", state, start, reached=state.position)

    def _approvals_after(self, total: int, change: Change) -> int:
        element, name = self._ring.approval_element, change.subject
        if change.before:
            total -= element(name, change.generation - 1, change.before)
        if change.digest:
            total += element(name, change.generation, change.digest)
        return total % _MODULUS

    def find(self, key_id: KeyId, generation: int, /) -> tuple[int, str]:
        """Return the change of a key that led to a generation; see `FollowedFeed`."""

        def is_wanted(change: Change) -> bool:
            made = change.kind, change.subject, change.generation
            return made == (KEY, key_id, generation)

        with self._database.reading() as connection:
            place = before_change(connection, key_id, generation)
            found = self._read_from(connection, place, is_wanted)
        if not found:
            return 0, ""
        return found[-1].position.revision, found[-1].change.digest

    def _read_from(
        self,
        connection: ServerConnection,
        place: Position | None,
        is_wanted: Callable[[Change], bool],
    ) -> list[StoredChange]:
        """Return changes behind a place; none if they don't lead to what is applied."""
        end, found = self.applied, []
        while place is not None and place.revision < end.revision:
            changes = read_feed(connection, place.revision).changes
            for stored in changes:
                place = next_position(place, stored.change)
                if place != stored.position:
                    return []
                if is_wanted(stored.change):
                    found.append(stored)
                if place == end:
                    return found
            if not changes:
                break
        return []

    def known(self) -> Mapping[KeyId, KnownKey]:
        """Return the last state of each key; see `FollowedFeed.known`."""
        census = self._inventory.census
        with self._lock:
            end, set_digest = self.applied, census.set_digest
        with suppress(IntegrityError):
            return self._walk.up_to(end)
        # Where the feed was altered, a recovery has counted all keys again.
        with self._database.reading() as connection:
            place = before_recovery(connection, 0)
        walk = FeedWalk(self._database, place or BEGINNING)
        known = walk.up_to(end)
        if f"{census.sums(known.values()).total:064x}" != set_digest:
            raise IntegrityError("The changes in the database were altered.")
        self._walk = walk
        return known

    # Own changes

    def begin(
        self,
        connection: ServerConnection,
        then: Callable[[], object] = no_statements,
        /,
    ) -> None:
        """Hold the fence of this node; see `ChangeFeed.begin`."""
        self.fence(connection, then)

    def lock(
        self,
        connection: ServerConnection,
        first: Callable[[], object] = no_statements,
        /,
    ) -> None:
        """Lock the feed and apply what this node lacks of it; see `ChangeFeed`."""
        self._follow(connection, partial(lock_and_read, first=first))
        state = self._verified
        assert state is not None  # noqa: S101 (nobody else can write it now)
        self._mine.state, self._mine.appended = state, []

    def append(self, connection: ServerConnection, change: Change, /) -> None:
        """Add a change; see `ChangeFeed.append`."""
        before = self._mine.state
        if before is None:
            raise RuntimeError("The feed must be locked first.")
        position = next_position(before.position, change)
        after = replace(before, position=position)
        if change.kind == KEY:
            appended = [stored.change for stored in self._mine.appended]
            changes = [c for c in (*appended, change) if c.kind == KEY]
            pairs = [(key_before(c), key_after(c)) for c in changes]
            digest = self._inventory.census.preview(pairs)
            after = replace(after, set_digest=bytes.fromhex(digest[-1]))
        elif change.kind == APPROVAL:
            total = int.from_bytes(before.approvals_digest, "big")
            total = self._approvals_after(total, change)
            after = replace(after, approvals_digest=_bytes(total))
        elif change.kind == CREDENTIAL and change.digest:
            after = replace(after, trust_digest=bytes.fromhex(change.digest))
        after = self._sealed(after)
        write_change(connection, before, after, change)
        self._mine.state = after
        self._mine.appended.append(StoredChange(position, change))

    def committed(self) -> None:
        """Apply what this thread has appended; see `ChangeFeed`."""
        appended, self._mine.appended = self._mine.appended, []
        self._mine.committed = self._mine.state
        if any(_is_read_again(stored.change) for stored in appended):
            self.catch_up()
            return
        with self._lock:
            for stored in appended:
                self._apply(stored.position, stored.change)

    @property
    def made(self) -> tuple[int, str]:
        """Revision and set digest of this thread's last change, hex."""
        state = self._mine.committed
        if state is None:
            return 0, ""
        approvals = state.approvals_digest.hex() if any(state.approvals_digest) else ""
        return state.position.revision, state.set_digest.hex() + approvals

    def publish(self, *changes: Change) -> Position:
        """
        Make changes that touch nothing but the feed, such as a withdrawn credential.

        Raises:
            UnsettledError: They may have been made; to be made again.
            StoreUnavailableError: They can't be made now.
        """

        def work(connection: ServerConnection) -> None:
            self.begin(connection)
            self.lock(connection)
            for change in changes:
                self.append(connection, change)

        self._database.run(work)
        self.committed()
        return self.applied

    def revise_trust(self, revise: Callable[[bytes], bytes]) -> Position:
        """
        Replace the trust document, on every node, by what a function makes of it.

        Args:
            revise: Returns the new document; the same for no change. It may be called
                again.

        Raises:
            UnsettledError: It may have been replaced; to be done again.
            StoreUnavailableError: It can't be replaced now.
        """

        def work(connection: ServerConnection) -> None:
            self.begin(connection)
            self.lock(connection)
            document = revise(self._trust.document)
            if document != self._trust.document:
                content = self._trust_mac(document) + document
                keep_trust(connection, content)
                digest = trust_digest_of(content).hex()
                self.append(connection, Change(CREDENTIAL, digest=digest))

        self._database.run(work)
        self.committed()
        return self.applied

    def accept(
        self, key_id: KeyId, before: KnownKey | None, after: KnownKey | None, /
    ) -> None:
        """Count a key as it is stored; see `FollowedFeed.accept`."""
        changes = []
        if before is not None:
            generation = before.generation + 1
            changes.append(Change(KEY, key_id, generation, before.digest))
        if after is not None:
            changes.append(Change(KEY, key_id, after.generation, "", after.digest))

        def work(connection: ServerConnection) -> None:
            self.begin(connection)
            self.lock(connection)
            step = self._inventory.census.step(before, after)
            keep_account(connection, step.change)
            for change in changes:
                self.append(connection, change)

        if changes:
            self._database.run(work)
            self.committed()

    def recover(
        self, count: Callable[[Mapping[KeyId, KnownKey]], Mapping[KeyId, KnownKey]]
    ) -> None:
        """Accept the database as it is; see `FollowedFeed.recover`."""
        census, store = self._inventory.census, self._inventory.store
        walk = FeedWalk(self._database)
        with self._database.transaction() as connection:
            end = lock_feed(connection).position
        _known_at(walk, end)  # What takes long keeps no node from changing keys.

        def work(connection: ServerConnection) -> None:
            self.begin(connection)
            state = lock_feed(connection)
            counted = count(_known_at(walk, state.position))
            keys = _audibly(connection, counted.values())
            census.adopt(census.sums(keys), verified=False)
            store.write_account(census.account())
            newest = max(state.position.revision, self.newest_seen())
            changes = [Change(RECOVERY, generation=newest + _LEAP)]
            listed = [key.key_id for key in store.digests()]
            changes += [Change(KEY, k) for k in listed if k not in counted]
            after = replace(
                state,
                set_digest=bytes.fromhex(census.set_digest),
                trust_digest=self._accept_trust(connection),
            )
            for change in _audibly(connection, changes):
                position = next_position(state.position, change)
                before, state = state, self._sealed(replace(after, position=position))
                write_change(connection, before, state, change)

        self._database.run(work)
        problem = self.start()
        if problem:
            raise IntegrityError(problem)

    def find_recovery(self, after: int) -> int:
        """
        Return the revision of the newest recovery behind a revision, or 0.

        It was made by a node of this cluster: the changes from there lead to the one
        that was applied last, which is authentic.

        Raises:
            StoreUnavailableError: The feed can't be read.
        """
        with self._database.reading() as connection:
            place = before_recovery(connection, after)
            found = self._read_from(connection, place, lambda c: c.kind == RECOVERY)
        # A database that lies could have begun at an earlier one.
        revision = found[-1].position.revision if found else 0
        return revision if revision > after else 0

    def _accept_trust(self, connection: ServerConnection) -> bytes:
        """Keep the trust document if a node wrote it, else none; return its digest."""
        content = read_account(connection).trust or b""
        document = content[_DIGEST_BYTES:]
        if not hmac.compare_digest(self._trust_mac(document), content[:_DIGEST_BYTES]):
            content = b""
            keep_trust(connection, content)
        return trust_digest_of(content)

    def _trust_mac(self, document: bytes) -> bytes:
        return self._ring.cluster_mac(_TRUST_LABEL + document)

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """
        Keep every node from committing a change, within the context.

        What is read in it is as the feed says that was applied. What a change under
        way has locked can't be written in it.

        Raises:
            StoreUnavailableError: The feed can't be read, or locked in time.
        """
        with (
            self._inventory.committing,
            self._database.transaction(join=True) as connection,
        ):
            self._follow(connection, lock_and_read)
            wait_no_more(connection)
            yield

    # What is not trusted

    def _is_authentic(self, state: FeedState) -> bool:
        return hmac.compare_digest(self._ring.cluster_mac(state.payload), state.mac)

    def _sealed(self, state: FeedState) -> FeedState:
        return replace(state, mac=self._ring.cluster_mac(state.payload))

    def _refuse(
        self,
        problem: str,
        state: FeedState,
        start: Position,
        foreign: int = 0,
        *,
        reached: Position | None = None,
    ) -> None:
        """
        Lock the HSM: the feed is not the one that was followed.

        Until now, this thread has applied what it has *reached*, by default *start*.

        Raises:
            HSMLockedError: Always, but where the next holds.
            TransactionConflictError: Another thread went on meanwhile, perhaps after a
                recovery that this reading did not see; to be read again.
        """
        facts: Mapping[str, Fact] = {
            "reason": f"feed_{problem}",
            "revision": state.position.revision,
            "applied": start.revision,
        }
        if foreign:
            facts = {**facts, "foreign": foreign}
        reason = _REASONS[problem].format(**facts)
        with self._lock:
            if self.applied != (reached or start):
                raise TransactionConflictError
            if not self._inventory.lock.reason:
                self._inventory.lock.set(reason, facts)
        raise HSMLockedError(f"The HSM is locked. {reason}", **facts)


_REASONS: Final = {
    "older": (
        "The database is an older copy: it ends at change {revision}, and this node "
        "has applied change {applied}."
    ),
    "other": (
        "The database is a different copy: its change {applied} differs from the one "
        "that this node applied."
    ),
    "altered": "The changes in the database were altered after change {applied}.",
    "foreign": (
        "The changes in the database were altered: the last one is {revision}, and no "
        "node has made change {foreign}. Delete that row of the table changes."
    ),
}


class _Trust(NamedTuple):
    """The trust document as it was checked last, and the digest of what is stored."""

    document: bytes = b""
    digest: bytes = b""

    @classmethod
    def of(cls, content: bytes | None) -> _Trust:
        """Return that of a row, which begins with the MAC of the document."""
        return cls((content or b"")[_DIGEST_BYTES:], trust_digest_of(content))


class _Mine(threading.local):
    """Of each thread: the end of the feed in its transaction, and what it appended."""

    def __init__(self) -> None:
        self.state: FeedState | None = None
        self.committed: FeedState | None = None
        self.appended: list[StoredChange] = []


def _known_at(walk: FeedWalk, end: Position) -> Mapping[KeyId, KnownKey]:
    """Return the last state of each key by the feed; none if it leads elsewhere."""
    with suppress(IntegrityError):
        return walk.up_to(end)
    return {}


def _audibly(connection: ServerConnection, items: Iterable[T]) -> Iterator[T]:
    """Yield items; the server ends a transaction of which it hears nothing for long."""
    for number, item in enumerate(items):
        if number % _HEARD_AFTER == 0:
            run(connection, "SELECT")
        yield item


def _bytes(total: int) -> bytes:
    return total.to_bytes(_DIGEST_BYTES, "big")


def _is_read_again(change: Change) -> bool:
    """Return whether a change of this node is applied as those of other nodes are."""
    return _is_of_all(change) or (change.kind == CREDENTIAL and bool(change.digest))


def _is_of_all(change: Change) -> bool:
    return change.kind == RECOVERY or (change.kind == KEY and not change.subject)
