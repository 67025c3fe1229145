# SPDX-License-Identifier: MIT
"""View of a cluster that the log of a node writes under."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hsm_core._internal.audit.head_mark import HeadMark
from hsm_core._internal.audit.shared_groups import FeedPosition
from hsm_core._internal.cluster.changes import Changes
from hsm_core._internal.cluster.membership import Membership
from hsm_core._internal.lib import silence
from hsm_core._internal.stores.postgresql.database import ClusterDatabase
from hsm_core.errors import StoreUnavailableError

_POSITION: Final = "SELECT revision, head FROM cluster"


class NodeView:
    """
    A `ClusterView` of a node.

    Until the feed is followed, its position is the newest of the database: a node that
    starts has no uses, and what else it records rests on nothing.

    Args:
        membership: Of the node.

        database: Of the cluster.

    Attributes:
        node: Name of the node.
        changes: Feed that the node follows; None until its keys are open.
        refused_groups: Number of groups that a change has made the node decide again.
        on_written: Called with the end of the log after each group; must not raise.
        on_renewed: Called after a lost connection, before anything is written again;
            raises if nothing may be.

    Raises:
        StoreUnavailableError: The database can't be read.
    """

    def __init__(self, membership: Membership, database: ClusterDatabase) -> None:
        self.node = membership.node
        self.changes: Changes | None = None
        self.refused_groups = 0
        self.on_written: Callable[[HeadMark], object] = lambda _: None
        self.on_renewed: Callable[[], object] = lambda: None
        self._membership = membership
        self._database = database
        self._newest = self._look()

    @property
    def epoch(self) -> int:
        """Epoch of the node."""
        return self._membership.epoch

    @property
    def position(self) -> FeedPosition:
        """Newest change that was applied."""
        found = self._followed
        return self._newest if found is None else FeedPosition(*found.applied)

    @property
    def _followed(self) -> Changes | None:
        """The feed, once it has a beginning."""
        changes = self.changes
        return changes if changes is not None and changes.applied.head else None

    def written(self, mark: HeadMark) -> None:
        """Note where the log ends now."""
        self.on_written(mark)

    def catch_up(self) -> None:
        """
        Check the fence, and apply the changes that the database has.

        Raises:
            NodeFencedError: The node was fenced.
            HSMLockedError: The feed is not the one that this node has followed.
            StoreUnavailableError: The database can't be read.
        """
        self.refused_groups += 1
        with silence.task():
            self._membership.check_fence()
            found = self._followed
            if found is None:
                self._newest = self._look()
            else:
                found.catch_up()
                found.check_head()

    def renew(self) -> None:
        """
        Raise the node's own epoch, and forget what was read; see `Membership.renew`.

        Raises:
            NodeFencedError: Another has raised it.
            HSMLockedError: The database is older than it was.
            StoreUnavailableError: It can't be raised now.
        """
        with silence.task():
            self._membership.renew()
            found = self._followed
            if found is not None:
                found.forget()
            self.on_renewed()

    def _look(self) -> FeedPosition:
        found = self._database.row(_POSITION)
        if found is None:
            raise StoreUnavailableError
        return FeedPosition(*found)


class LedgerView:
    """
    A `ClusterView` under which a node writes the retention ledger.

    Args:
        view: View of the node's log.

    Attributes:
        node: Name of the node.
    """

    def __init__(self, view: NodeView) -> None:
        self.node = view.node
        self._view = view
        self.catch_up = view.catch_up
        self.renew = view.renew

    @property
    def epoch(self) -> int:
        """Epoch of the node."""
        return self._view.epoch

    @property
    def position(self) -> FeedPosition:
        """Newest change that was applied."""
        return self._view.position

    def written(self, mark: HeadMark) -> None:
        """Do nothing: the audit logs name the end of the ledger."""
