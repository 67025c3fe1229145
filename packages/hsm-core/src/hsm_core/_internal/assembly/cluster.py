# SPDX-License-Identifier: MIT
"""Node of a cluster: its database, its membership, and the view of its log."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final, TypeVar

from hsm_core.__about__ import __version__
from hsm_core._internal.approvals.journal import ApprovalJournal, ApprovalSetDigest
from hsm_core._internal.approvals.maintenance import DualControl
from hsm_core._internal.audit.heads import HeadsWatch
from hsm_core._internal.cluster.approvals import ApprovalChanges
from hsm_core._internal.cluster.changes import Changes
from hsm_core._internal.cluster.fence import new_instance, session_name
from hsm_core._internal.cluster.jobs import JobLeases
from hsm_core._internal.cluster.mark import LastSeenMark, SeenEnd, is_older
from hsm_core._internal.cluster.membership import (
    LEVEL,
    Membership,
    NodeFencedError,
    NodeOutdatedError,
)
from hsm_core._internal.cluster.node_rows import NodeFacts
from hsm_core._internal.cluster.overview import ClusterOverview
from hsm_core._internal.cluster.seen import SeenDatabase
from hsm_core._internal.cluster.settlement import Settlement
from hsm_core._internal.cluster.trust import TrustRegister
from hsm_core._internal.cluster.view import LedgerView, NodeView
from hsm_core._internal.keyring.dependencies import Dependencies
from hsm_core._internal.keyring.journal import Journal, KeyJournal
from hsm_core._internal.keyring.key_ring import KeyRing
from hsm_core._internal.keyring.repository import KeyRepository
from hsm_core._internal.keyring.stored_keys import FollowedFeed, StoreLock
from hsm_core._internal.keyring.use_counters import UseAccounts
from hsm_core._internal.lib import silence
from hsm_core._internal.lib.concurrency import BackgroundWorker
from hsm_core._internal.lib.encoding import length_prefixed
from hsm_core._internal.policy.in_force import PolicyHolder
from hsm_core._internal.retention.shared import SharedRetentionSlot
from hsm_core._internal.stores.audit import open_cluster_ledger
from hsm_core._internal.stores.guard import unwrapped
from hsm_core._internal.stores.locations import open_database
from hsm_core._internal.stores.postgresql.audit_logs import ClusterLogs, ReadableLog
from hsm_core._internal.stores.postgresql.connection import UnreachableError
from hsm_core._internal.stores.postgresql.database import ClusterDatabase
from hsm_core._internal.stores.postgresql.feed import KEY
from hsm_core._internal.stores.postgresql.records import (
    ClusterApprovalStore,
    ClusterKeyStore,
)
from hsm_core.errors import (
    AuditUnavailableError,
    HSMError,
    OutcomeUnknownError,
    StoreUnavailableError,
)
from hsm_core.model import LogHead
from hsm_core.protocols import (
    ApprovalStore,
    AuditDraft,
    AuditHead,
    AuditLog,
    Clock,
    Entropy,
    KeyStore,
    SharedTrust,
)
from hsm_core.settings import Settings

T = TypeVar("T")
_INSTANCE_BYTES: Final = 4
_SYNC_SECONDS: Final = 0.5
_TAKING_OVER_SECONDS: Final = 0.5
_PAUSE_SECONDS: Final = 0.5
_TRANSIENT: Final = (AuditUnavailableError, OutcomeUnknownError, StoreUnavailableError)
_NAMING_SECONDS: Final = 0.5


class ClusterNode:
    """
    Node of a cluster, from before its keys are read until its HSM is closed.

    Args:
        database: Database of the cluster.

        membership: Membership of the node.

    Attributes:
        database: Database of the cluster.
        membership: Membership of the node.
        view: What its log is written under.
        overview: What operators see of the cluster.
        jobs: Leases of background jobs.
        seen: The database as the node has seen it; None until its key ring is open.
        logs: Logs of all nodes, once its own is open.
    """

    logs: ClusterLogs
    _heads: HeadsWatch
    _log_id: str

    def __init__(self, database: ClusterDatabase, membership: Membership) -> None:
        self.database = database
        self.membership = membership
        self.view = NodeView(membership, database)
        self.overview = ClusterOverview(database, membership, self.view)
        self.jobs = JobLeases(database, membership)
        self.seen: SeenDatabase | None = None
        self._was_here = membership.epoch > 1
        self._stopped: NodeFencedError | None = None
        self._on_stopped: Callable[[str, bool], object] = lambda *_: None
        self._worker = self.new_worker()
        # Of its own: it waits for the database, and neither beat nor mark may.
        self._naming = self.new_worker()

    def new_worker(self) -> BackgroundWorker:
        """Return a worker no step of which waits long for a database that hangs."""
        return BackgroundWorker(silence.task)

    def watch(self, path: Path, ring: KeyRing, log_id: str) -> None:
        """
        Open the last-seen mark.

        Args:
            path: Its file.

            ring: Key ring of the cluster.

            log_id: ID of the node's log.

        Raises:
            ConfigurationError: The mark is another node's, or can't be opened.
        """
        owner = length_prefixed(ring.store_id.encode(), self.membership.node.encode())
        mark = LastSeenMark(path, ring.mark_mac, owner)
        self.seen = seen = SeenDatabase(
            mark,
            self.database,
            self.logs.log,
            log_id,
            lambda: self.membership.epoch,
            was_here=self._was_here,
        )
        self.view.on_written = seen.written
        self.overview.mark_problem = seen.finding
        self._worker.every(_SYNC_SECONDS, mark.sync)

    def follow(self, changes: Changes, lock: StoreLock) -> None:
        """
        Let log, fence and beats go by a feed of changes.

        Args:
            changes: The feed.

            lock: Locks the HSM once the node is none any more.
        """

        def stop(error: NodeFencedError) -> None:
            lock.set(str(error), {})
            self._stopped = error
            self._tell_stopped()

        self.membership.on_stop = stop
        self.jobs.is_locked = lambda: bool(lock.reason)
        self.membership.check()
        changes.fence = self.membership.lock_fence
        if self.seen is not None:
            mark = self.seen.mark
            changes.newest_seen = lambda: mark.seen.revision
        self.membership.applied = lambda: changes.applied.revision
        self.view.changes = changes

    def follow_uses(self, uses: UseAccounts) -> None:
        """Let use counters go by changes of keys, and by the database's timeline."""
        self.database.on_new_timeline(lambda _: uses.doubt_blocks())
        if self.view.changes is not None:
            changes = self.view.changes
            changes.on_change(KEY, lambda change: uses.reread(change.subject))

    def begin_settling(
        self, ground: Dependencies, digest: ApprovalSetDigest, dual: DualControl
    ) -> None:
        """
        Note what is seen of the database, and settle what dead nodes leave.

        Args:
            ground: Keys and log of this node, which was compared with the database.

            digest: Set digest of the approvals.

            dual: The approvals.
        """
        inventory, audit, seen = ground.inventory, ground.audit, self.seen
        if seen is not None and isinstance(inventory.feed, Changes):
            if not inventory.lock.reason:
                if ground.settings.accept_changed_store and seen.find_older():
                    self.accept(ground, "accept_changed_store")
                else:
                    seen.begin(inventory.feed)
            self.view.on_renewed = lambda: seen.check(inventory.lock.set)
            self._naming.every(_TAKING_OVER_SECONDS, lambda: self._take_over(ground))

        def journals(intents: Sequence[AuditDraft]) -> tuple[Journal, ...]:
            approvals = ApprovalJournal(
                digest,
                dual.register.store,
                inventory,
                audit,
                ground.entropy,
                ground.policy.policy_hash,
                dual.care.others,
                intents,
            )
            return KeyJournal(inventory, audit, intents), approvals

        settlement = Settlement(
            self.logs,
            self.jobs.holds,
            self.membership.is_fenced,
            self.membership.note_settled,
            journals,
            dual.care.settle_reserved_of,
        )
        self.membership.on_dead = settlement.settle

    def _take_over(self, ground: Dependencies) -> None:
        """
        Go on with a database that another node has recovered.

        Its recovery is behind every change that this node has seen, so it is none that
        came back with an older database.
        """
        seen, lock, feed = self.seen, ground.inventory.lock, ground.inventory.feed
        if seen is None or not isinstance(feed, Changes):
            return
        with ground.inventory.committing:  # As a recovery by this node has it.
            if not lock.reason or not is_older(lock.facts):
                return
            self.membership.check()
            feed.catch_up()
            revision = feed.find_recovery(seen.mark.seen.revision)
            if revision:
                self.accept(ground, f"change {revision}, by another node")
                lock.open()

    def accept(self, ground: Dependencies, reason: str) -> None:
        """
        Record what an older database has lost, and go on with it.

        Raises:
            HSMError: Database or audit log can't be used.
        """
        seen, feed = self.seen, ground.inventory.feed
        if seen is None or not isinstance(feed, Changes):
            return
        older = seen.find_older()
        self.membership.renew(seen.mark.seen.epoch)
        if older is not None:
            draft = AuditDraft.system(
                "system.database-accepted",
                f"Accepted by recovery: {reason}. {older.reason}{older.losses}",
                policy=ground.policy.policy_hash(),
            )
            ground.audit.append([draft], durable=True, reserved=True).wait()
        seen.accept(feed)

    def tie(self, audit: AuditLog, hmac_key: bytes) -> None:
        """
        Let the node's log name the growth of the others.

        Args:
            audit: The log.

            hmac_key: Key of all logs.
        """
        self._log_id = audit.log_id
        self.logs = ClusterLogs(self.database, hmac_key)
        self._heads = HeadsWatch(audit, self._grown)

    def other_logs(self, log_id: str) -> Sequence[ReadableLog]:
        """Return the audit logs of all other nodes, of those that are gone, too."""
        names = [name.log_id for name in self.logs.names()]
        return [self.logs.log(name) for name in names if name != log_id]

    def _grown(self, known: Mapping[str, int]) -> Sequence[LogHead]:
        """
        Return the heads of the logs that have grown, and note them in the mark.

        A node that is gone leaves its log behind. The mark has no need of it once this
        node's log names its end: a database without that end lacks this record, too.
        """
        found = self.logs.grown(known)
        if self.seen is not None:
            ends = {h.log_id: SeenEnd(h.size - 1, h.leaf_hash) for h in found}
            live = {row.log_id for row in self.membership.rows if row.is_live}
            self.seen.note_heads(ends, known.keys() - ends.keys() - live)
        return found

    def finish(self) -> None:
        """
        Name the growth of the other logs for the last time.

        Raises:
            AuditTamperedError: A head mark is missing, or was altered.
            AuditUnavailableError: They can't be read, or the own one not written.
        """
        self._heads.record_growth(now=True)

    def begin(self, log_id: str, policy: PolicyHolder) -> None:
        """
        Announce the node and name the growth of other logs: the HSM is open.

        Args:
            log_id: ID of its audit log.

            policy: The policy that is in force.
        """

        def facts() -> NodeFacts:
            return NodeFacts(
                level=LEVEL,
                version=__version__,
                policy=policy.policy_hash(),
                log_id=log_id,
            )

        self.membership.facts = facts
        self.membership.on_clock = policy.doubt_clock
        policy.doubt_clock(self.membership.is_clock_wrong)
        self._naming.every(_NAMING_SECONDS, self._heads.record_growth)
        self._naming.start()
        self._worker.start()

    def when_stopped(self, call: Callable[[str, bool], object]) -> None:
        """Call a function once this process is a node no more."""
        self._on_stopped = call
        self._tell_stopped()

    def _tell_stopped(self) -> None:
        error = self._stopped
        if error is not None:
            self._on_stopped(str(error), isinstance(error, NodeOutdatedError))

    def close(self, *, settled: bool = False) -> None:
        """
        Leave the cluster, and close the database; once is enough.

        Args:
            settled: Whether no approval is reserved for what this node does. Its log,
                which is closed, says whether a change is unfinished.
        """
        self._naming.stop(_SYNC_SECONDS)
        self.membership.close(settled=settled and self._is_log_settled())
        self._worker.stop(_SYNC_SECONDS)
        if self.seen is not None:
            self.seen.mark.close()
        self.database.close()

    def _is_log_settled(self) -> bool:
        """Return whether the log was closed in order, each intent with its outcome."""
        with suppress(HSMError):
            mark = self.logs.log(self._log_id).mark().mark
            return mark.clean and mark.floor > mark.seq
        return False


def follow_changes(
    store: KeyStore, inventory: KeyRepository, node: ClusterNode | None
) -> None:
    """Let keys follow the changes of all nodes, if their store is a cluster's."""
    found = unwrapped(store)
    if isinstance(found, ClusterKeyStore):
        changes = Changes(found.database, inventory)
        found.follow(changes)
        inventory.feed = changes
        if node is not None:
            node.follow(changes, inventory.lock)


def follow_trust(
    ground: Dependencies, record: Callable[[str], None]
) -> SharedTrust | None:
    """
    Let people go by what any node has withdrawn; None without a cluster.

    Args:
        ground: Feed, policy and name of the node.

        record: Records what this node withdraws.
    """
    feed, policy = ground.inventory.feed, ground.policy
    if not isinstance(feed, Changes):
        return None
    ring, node = ground.inventory.ring, ground.settings.node_name
    trust = TrustRegister(feed, ring, node, policy.changes, record)
    policy.follow(trust)
    return trust


def follow_approvals(
    feed: FollowedFeed,
    store: ApprovalStore,
    digest: ApprovalSetDigest,
    inventory: KeyRepository,
    node: ClusterNode | None,
) -> ApprovalChanges | None:
    """Let approvals follow the changes of all nodes, if their store is a cluster's."""
    found = unwrapped(store)
    if not (isinstance(feed, Changes) and isinstance(found, ClusterApprovalStore)):
        return None
    renew = node.membership.renew if node is not None else lambda: 0
    others = ApprovalChanges(found.database, feed, digest, renew)
    found.follow(feed, others.removal)
    if not inventory.lock.reason:
        others.catch_up()
    return others


def open_again(
    attempt: Callable[[], T], progress: Callable[[str], None], ends: float
) -> T:
    """
    Open a node, and try again as long as its database is slow or pauses.

    Args:
        attempt: Opens it, or leaves nothing behind.

        progress: Called with why another attempt is made.

        ends: Instant of ``time.monotonic()`` after which no other is made.

    Raises:
        HSMError: It was refused, or the time is over.
    """
    is_first = True
    while True:
        try:
            return attempt()
        except _TRANSIENT as error:
            is_refused = is_first and isinstance(error, UnreachableError)
            if is_refused or time.monotonic() >= ends:
                raise
            progress(f"new attempt: {error}")
        is_first = False
        time.sleep(_PAUSE_SECONDS)


def shared_retention(
    node: ClusterNode,
    settings: Settings,
    hmac_key: bytes,
    clock: Clock,
    entropy: Entropy,
) -> SharedRetentionSlot:
    """Return what runs retention while the node has the lease for it."""

    def open_ledger() -> AuditLog:
        view = LedgerView(node.view)
        return open_cluster_ledger(
            settings, hmac_key, clock, entropy, node.database, view
        )

    def stored_head() -> AuditHead | None:
        ledger = node.logs.ledger()
        return ledger.head() if ledger is not None else None

    return SharedRetentionSlot(node.jobs, open_ledger, stored_head)


def join_cluster(settings: Settings, clock: Clock, entropy: Entropy) -> ClusterNode:
    """
    Join the cluster of the database that all stores lie in.

    Raises:
        StoreLockedError: Another process is the node of this name.
        ConfigurationError: The database, or the node's name, is not usable.
        StoreUnavailableError: The database can't be reached.
    """
    instance = new_instance(entropy.random_bytes(_INSTANCE_BYTES))
    database = open_database(settings, session_name(settings.node_name, instance))
    assert database is not None  # noqa: S101 (for the type checker)
    with ExitStack() as stack:
        stack.callback(database.close)
        name = settings.node_name
        membership = Membership.join(database, name, instance, clock=clock)
        stack.callback(membership.close)
        # To open a long log takes longer than a node may be silent.
        membership.start()
        node = ClusterNode(database, membership)
        stack.pop_all()
    return node
