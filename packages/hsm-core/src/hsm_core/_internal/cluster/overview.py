# SPDX-License-Identifier: MIT
"""Overview of a cluster for operators: status, nodes, retirement."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Final

from hsm_core import operations as ops
from hsm_core._internal.cluster.membership import Membership
from hsm_core._internal.cluster.node_rows import NodeRow
from hsm_core._internal.cluster.trust import without_node
from hsm_core._internal.cluster.view import NodeView
from hsm_core._internal.stores.postgresql.database import ClusterDatabase
from hsm_core.errors import UnavailableError

_SILENT_SECONDS: Final = 2.0
"""Seconds without a beat after which a node no longer says that it can decide."""


class ClusterOverview:
    """
    A cluster, as its operators see it through one node.

    Args:
        database: Database of the cluster.

        membership: Membership of this node.

        view: What its log is written under.

    Attributes:
        mark_problem: Returns what is wrong with the last-seen mark.
    """

    def __init__(
        self, database: ClusterDatabase, membership: Membership, view: NodeView
    ) -> None:
        self._database = database
        self._membership = membership
        self._view = view
        self.mark_problem: Callable[[], str] = str

    def status(self) -> ops.ClusterStatus:
        """Return the state of the cluster as of the last beat."""
        member, changes = self._membership, self._view.changes
        live = [row for row in member.rows if row.is_live]
        return ops.ClusterStatus(
            node=member.node,
            decides=self._decides(),
            revision=member.applied(),
            feed_lag_seconds=changes.age if changes else 0.0,
            nodes_live=member.nodes_live,
            policies=len({row.policy for row in live if row.policy}),
            level=member.cluster_level,
            has_standby=self._database.server.has_standby,
            mark_problem=self.mark_problem(),
            clock_difference_seconds=member.clock_difference_seconds,
            group_retries=self._view.refused_groups,
        )

    def nodes(self) -> ops.NodeList:
        """See `ClusterOperations.nodes`."""
        member = self._membership
        return ops.NodeList(
            node=member.node,
            revision=member.applied(),
            items=tuple(map(_shown, member.nodes())),
        )

    def retire(self, node: str, /) -> None:
        """See `ClusterOperations.retire`."""
        self._membership.retire(node)
        if self._view.changes is not None:
            self._view.changes.revise_trust(partial(without_node, node=node))

    def _decides(self) -> bool:
        try:
            self._membership.check()
        except UnavailableError:
            return False
        changes = self._view.changes
        is_beating = time.monotonic() - self._membership.beaten_at < _SILENT_SECONDS
        return is_beating and (changes is None or changes.is_fresh)


def _shown(row: NodeRow) -> ops.NodeInfo:
    return ops.NodeInfo(
        node=row.node,
        state=row.state,
        epoch=row.epoch,
        revision=row.applied,
        level=row.level,
        version=row.version,
        policy=row.policy,
        log_id=row.log_id,
    )
