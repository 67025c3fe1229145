# SPDX-License-Identifier: MIT
"""Node of a cluster: its database, its membership, and the view of its log."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Final

from hsm_core.__about__ import __version__
from hsm_core._internal.approvals.journal import ApprovalSetDigest
from hsm_core._internal.cluster.approvals import ApprovalChanges
from hsm_core._internal.cluster.changes import Changes
from hsm_core._internal.cluster.fence import new_instance, session_name
from hsm_core._internal.cluster.membership import LEVEL, Membership
from hsm_core._internal.cluster.node_rows import NodeFacts
from hsm_core._internal.cluster.overview import ClusterOverview
from hsm_core._internal.cluster.view import NodeView
from hsm_core._internal.keyring.repository import KeyRepository
from hsm_core._internal.keyring.stored_keys import FollowedFeed, StoreLock
from hsm_core._internal.stores.guard import unwrapped
from hsm_core._internal.stores.locations import open_database
from hsm_core._internal.stores.postgresql.database import ClusterDatabase
from hsm_core._internal.stores.postgresql.records import (
    ClusterApprovalStore,
    ClusterKeyStore,
)
from hsm_core.protocols import ApprovalStore, Clock, Entropy, KeyStore
from hsm_core.settings import Settings

_INSTANCE_BYTES: Final = 4


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
    """

    def __init__(self, database: ClusterDatabase, membership: Membership) -> None:
        self.database = database
        self.membership = membership
        self.view = NodeView(membership, database)
        self.overview = ClusterOverview(database, membership, self.view)

    def follow(self, changes: Changes, lock: StoreLock) -> None:
        """
        Let log, fence and beats go by a feed of changes.

        Args:
            changes: The feed.

            lock: Locks the HSM once the node is none any more.
        """
        self.membership.on_stop = lambda error: lock.set(str(error), {})
        changes.fence = self.membership.lock_fence
        self.membership.applied = lambda: changes.applied.revision
        self.view.changes = changes

    def begin(self, log_id: str, policy: Callable[[], str]) -> None:
        """
        Begin to beat: the HSM is open.

        Args:
            log_id: ID of its audit log.

            policy: Returns the hash of the policy that is in force.
        """

        def facts() -> NodeFacts:
            return NodeFacts(
                level=LEVEL, version=__version__, policy=policy(), log_id=log_id
            )

        self.membership.facts = facts
        self.membership.start()

    def close(self) -> None:
        """Leave the cluster, and close the database; once is enough."""
        self.membership.close()
        self.database.close()


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
        node = ClusterNode(database, membership)
        stack.pop_all()
    return node
