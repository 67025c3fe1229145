# SPDX-License-Identifier: MIT
"""Audit logs of several nodes in one database, for tests."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from hsm_core._internal.audit.heads import HeadsWatch
from hsm_core._internal.cluster.membership import Membership
from hsm_core._internal.cluster.view import NodeView
from hsm_core._internal.stores.postgresql.audit import PostgresAuditLog
from hsm_core._internal.stores.postgresql.audit_logs import ClusterLogs
from hsm_core._internal.stores.postgresql.connection import read_location
from hsm_core._internal.stores.postgresql.database import ClusterDatabase
from hsm_core.protocols import Clock
from hsm_core.testing import FakeClock
from tests.core.audit_support import KEY, options


class Site:
    """
    Logs of the nodes of a cluster, open in this process.

    Args:
        database: Of the cluster.

        clock: Gives the time of each record.
    """

    def __init__(self, database: ClusterDatabase, clock: Clock) -> None:
        self.database = database
        self.clock = clock
        self.all = ClusterLogs(database, KEY)
        self.logs: dict[str, PostgresAuditLog] = {}
        self.watches: dict[str, HeadsWatch] = {}
        self._opened = 0

    def open(self, node: str, timeout_seconds: float = 20.0) -> PostgresAuditLog:
        """Open the log of a node."""
        self._opened += 1
        given = options(
            clock=self.clock, seed=self._opened, timeout_seconds=timeout_seconds
        )
        member = Membership.join(self.database, node, node, clock=self.clock)
        view = NodeView(member, self.database)
        log = PostgresAuditLog.open(self.database, replace(given, node=node), view)
        self.logs[node] = log
        self.watches[node] = HeadsWatch(log, self.all.grown)
        return log

    def watch(self) -> None:
        """Let each log name the growth of the others."""
        for watch in self.watches.values():
            watch.record_growth(now=True)

    def close(self) -> None:
        """Close all logs."""
        for log in self.logs.values():
            log.close()


@contextmanager
def site_on(url: str, *nodes: str, clock: Clock | None = None) -> Iterator[Site]:
    """Open the logs of nodes in a database, and close them in order."""
    database = ClusterDatabase(read_location(url))
    site = Site(database, clock or FakeClock())
    try:
        for node in nodes:
            site.open(node)
        yield site
    finally:
        site.close()
        database.close()
