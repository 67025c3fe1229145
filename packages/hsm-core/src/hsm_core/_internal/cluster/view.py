# SPDX-License-Identifier: MIT
"""View of a cluster that the log of a node writes under."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hsm_core._internal.audit.head_mark import HeadMark
from hsm_core._internal.audit.shared_groups import FeedPosition
from hsm_core._internal.cluster.membership import Membership
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
        follow: Applies the feed, and returns the position that was reached.
        applied: Returns the newest position that was applied, once it is `follow`ed.
        on_written: Called with the end of the log after each group; must not raise.

    Raises:
        StoreUnavailableError: The database can't be read.
    """

    def __init__(self, membership: Membership, database: ClusterDatabase) -> None:
        self.node = membership.node
        self._membership = membership
        self._database = database
        self._position = self._newest()
        self.follow: Callable[[], object] = self._look
        self.applied: Callable[[], tuple[int, bytes]] = lambda: self._position
        self.on_written: Callable[[HeadMark], object] = lambda _: None

    @property
    def epoch(self) -> int:
        """Epoch of the node."""
        return self._membership.epoch

    @property
    def position(self) -> FeedPosition:
        """Newest change that was applied."""
        return FeedPosition(*self.applied())

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
        self._membership.check_fence()
        self.follow()

    def renew(self) -> None:
        """
        Raise the node's own epoch; see `Membership.renew`.

        Raises:
            NodeFencedError: Another has raised it.
            StoreUnavailableError: It can't be raised now.
        """
        self._membership.renew()

    def _look(self) -> None:
        self._position = self._newest()

    def _newest(self) -> tuple[int, bytes]:
        found = self._database.row(_POSITION)
        if found is None:
            raise StoreUnavailableError
        revision, head = found
        return revision, head
