# SPDX-License-Identifier: MIT
"""Rows of the nodes: what each says of itself, and whether it lives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from hsm_core._internal.cluster.death_watch import Beat

if TYPE_CHECKING:
    from hsm_core._internal.stores.postgresql.driver import ServerConnection

_ENTER: Final = (
    "INSERT INTO nodes (node, beat, level) VALUES ($1, 1, $2) ON CONFLICT (node) "
    "DO UPDATE SET beat = nodes.beat + 1, level = excluded.level, applied = 0, "
    "log_id = ''"
)
_BEAT: Final = (
    "UPDATE nodes SET beat = beat + 1, applied = $2, level = $3, version = $4, "
    "policy = $5, log_id = $6 WHERE node = $1"
)
_READ: Final = (
    "SELECT nodes.node, fence.epoch, fence.instance, nodes.beat, nodes.applied, "
    "nodes.level, nodes.version, nodes.policy, nodes.log_id, nodes.settled "
    "FROM nodes JOIN fence USING (node) ORDER BY nodes.node"
)
_FACTS: Final = (
    "SELECT (SELECT level FROM cluster), "
    "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
)
_SETTLED: Final = "UPDATE nodes SET settled = $2 WHERE node = $1 AND settled < $2"
_FORGET: Final = (
    "WITH gone AS MATERIALIZED (SELECT node, epoch FROM fence "
    "WHERE node = $1 AND instance IS NULL FOR SHARE) DELETE FROM nodes USING gone "
    "WHERE nodes.node = gone.node AND nodes.settled >= gone.epoch RETURNING 1"
)
"""Waits for a process that is just getting the name."""
_LEVEL: Final = "SELECT level FROM cluster FOR SHARE"
_LOCK: Final = "SELECT level FROM cluster FOR UPDATE"
_LEAST: Final = (
    "SELECT min(nodes.level) FROM nodes JOIN fence USING (node) "
    "WHERE fence.instance IS NOT NULL"
)
_RAISE: Final = "UPDATE cluster SET level = $1 WHERE level < $1"


class NodeFacts(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a node says of itself.

    Attributes:
        level: Level of its program.
        version: Version of its program.
        policy: Hash of the policy that is in force there.
        log_id: ID of its audit log; empty while it opens.
    """

    level: int = 0
    version: str = ""
    policy: str = ""
    log_id: str = ""


class NodeRow(msgspec.Struct, frozen=True):
    """
    A node of the cluster.

    Attributes:
        node: Its name.
        epoch: Its epoch.
        instance: ID of its process; empty if it was fenced or has left.
        beat: Counts its beats.
        applied: Newest revision that it has applied.
        level: See `NodeFacts`, like the next three.
        settled: Epoch up to which nothing of it is unfinished.
    """

    node: str
    epoch: int
    instance: str
    beat: int
    applied: int
    level: int
    version: str
    policy: str
    log_id: str
    settled: int

    @property
    def is_live(self) -> bool:
        """Whether a process has its name, as far as anybody has noticed."""
        return bool(self.instance)

    @property
    def is_unsettled(self) -> bool:
        """Whether it left or was fenced, and something of it may be unfinished."""
        return not self.instance and self.settled < self.epoch

    @property
    def state(self) -> str:
        """State for people: ``live``, ``dead`` (not settled yet), or ``stopped``."""
        return "live" if self.is_live else "dead" if self.is_unsettled else "stopped"

    @property
    def seen(self) -> Beat:
        """What changes as long as it lives."""
        return self.instance, self.epoch, self.beat


class Beating(msgspec.Struct, frozen=True):
    """
    What a node learns at a beat.

    Attributes:
        is_ours: Whether this process still has its name.
        rows: All nodes, as they were at this beat.
        level: Level of the cluster.
        time: The database's clock, microseconds since 1970.
    """

    is_ours: bool
    rows: list[NodeRow]
    level: int
    time: int


def enter(connection: ServerConnection, node: str, level: int) -> None:
    """Write the row of a node that joins."""
    connection.execute(_ENTER, (node, level))


def beat(
    connection: ServerConnection,
    node: str,
    instance: str,
    facts: NodeFacts,
    applied: int,
) -> Beating:
    """
    Count a beat in the node's row, and read all rows.

    It is not synced and waits for no standby: that would hold all beats at once, and
    each node would take the others for dead. Callers roll it back if it is not theirs:
    the row may be that of a process that has the name now.
    """
    connection.execute("SET LOCAL synchronous_commit TO off")
    values = (facts.level, facts.version, facts.policy, facts.log_id)
    connection.execute(_BEAT, (node, applied, *values))
    rows = read_nodes(connection)
    found = connection.execute(_FACTS).fetchone()
    level, time = found or (0, 0)
    is_ours = any(row.node == node and row.instance == instance for row in rows)
    return Beating(is_ours, rows, level or 0, time)


def read_nodes(connection: ServerConnection) -> list[NodeRow]:
    """Return all nodes, by name."""
    found = connection.execute(_READ).fetchall()
    return [
        NodeRow(node, epoch, given or "", *rest) for node, epoch, given, *rest in found
    ]


def read_time(connection: ServerConnection) -> int:
    """Return the database's clock, microseconds since 1970."""
    found = connection.execute(_FACTS).fetchone()
    return int(found[1]) if found else 0


def note_settled(connection: ServerConnection, node: str, epoch: int) -> None:
    """Note that nothing of a node is unfinished up to an epoch."""
    connection.execute(_SETTLED, (node, epoch))


def forget(connection: ServerConnection, node: str) -> bool:
    """Delete the row of a settled node that does not live; return whether it was."""
    return connection.execute(_FORGET, (node,)).fetchone() is not None


def read_level(connection: ServerConnection) -> int:
    """Return the cluster's level, which can't be raised until the transaction ends."""
    found = connection.execute(_LEVEL).fetchone()
    return 0 if found is None else int(found[0])


def raise_level(connection: ServerConnection) -> None:
    """Raise the cluster's level to the lowest of the nodes that live."""
    # Who joins meanwhile waits for this lock, and then finds the new level.
    connection.execute(_LOCK)
    found = connection.execute(_LEAST).fetchone()
    if found is not None and found[0] is not None:
        connection.execute(_RAISE, (found[0],))
