# SPDX-License-Identifier: MIT
"""
Leases of background jobs: each job runs on one node of a cluster at a time.

A free lease is given to the node that asks first, which keeps it until it leaves, is
fenced, or gives it back because its HSM is locked. A lease of what is not listed as a
node is free: nobody would notice that it died. A fenced node can't commit anything,
so a job that it still runs changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

from hsm_core._internal.cluster import fence
from hsm_core._internal.lib.concurrency import Task
from hsm_core._internal.stores.postgresql.database import ClusterDatabase

if TYPE_CHECKING:
    from hsm_core._internal.stores.postgresql.driver import ServerConnection

RETRY_SECONDS: Final = 10.0
"""Seconds after which a node asks again for a job that another node runs."""

_TAKE: Final = (
    "INSERT INTO leases (name, node, epoch) VALUES ($1, $2, $3) "
    "ON CONFLICT (name) DO UPDATE SET node = $2, epoch = $3 "
    "WHERE leases.node = $2 OR NOT EXISTS (SELECT 1 FROM fence "
    "JOIN nodes USING (node) WHERE fence.node = leases.node "
    "AND fence.epoch = leases.epoch AND fence.instance IS NOT NULL)"
)
_GIVE_BACK: Final = "DELETE FROM leases WHERE name = $1 AND node = $2 AND epoch = $3"


class FencedNode(Protocol):
    """Name and epoch of this node."""

    node: str

    @property
    def epoch(self) -> int:
        """Its epoch."""
        ...


class JobLeases:
    """
    Leases of jobs, as one node has them. Thread-safe.

    Args:
        database: Of the cluster.

        member: This node.

    Attributes:
        is_locked: Returns whether the HSM is locked: then this node runs no jobs.
    """

    def __init__(self, database: ClusterDatabase, member: FencedNode) -> None:
        self._database = database
        self._member = member
        self.is_locked: Callable[[], bool] = lambda: False

    def holds(self, job: str, leave: Callable[[], None] = lambda: None) -> bool:
        """
        Return whether this node is to run a job now.

        To be called before each run, by the thread that runs it. A process that was
        fenced has no lease, and takes none from its successor of the same name.

        Args:
            job: Its name.

            leave: Called before the lease is given back.

        Raises:
            StoreUnavailableError: The database can't be asked.
        """
        node = self._member.node

        def take(connection: ServerConnection) -> bool:
            epoch = self._member.epoch
            if not fence.lock(connection, node, epoch):
                return False
            return connection.execute(_TAKE, (job, node, epoch)).rowcount > 0

        def give_back(connection: ServerConnection) -> None:
            connection.execute(_GIVE_BACK, (job, node, self._member.epoch))

        if not self.is_locked():
            return self._database.run(take)
        leave()
        self._database.run(give_back)
        return False

    def holder(self, job: str) -> str:
        """
        Return the node that has the lease of a job; empty if none has.

        Raises:
            StoreUnavailableError: The database can't be asked.
        """
        found = self._database.row("SELECT node FROM leases WHERE name = $1", (job,))
        return str(found[0]) if found else ""

    def guarded(self, job: str, task: Task) -> Task:
        """Return a task that is run only while this node has the lease of a job."""

        def run() -> float | None:
            return task() if self.holds(job) else RETRY_SECONDS

        return run
