# SPDX-License-Identifier: MIT
"""Nodes of a cluster: list them, and retire those that are gone."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta

from hsm_core.model import Line, Record
from hsm_core.operations.base import Effect, Operation, Route

__all__ = ["ClusterStatus", "ListNodes", "NodeInfo", "NodeList", "RetireNode"]


class NodeInfo(Record, frozen=True, kw_only=True):
    """
    Node of a cluster.

    Attributes:
        state: ``live``, ``dead`` (its unfinished work is not settled yet) or
            ``stopped``.
        epoch: Number of the last fence; it grows whenever a process takes the name or
            another node fences it.
        revision: Newest change that the node had applied at its last beat.
        level: Newest formats that its release writes.
        version: Its release.
        policy: Hash of the policy in force there.
        log_id: ID of its audit log.
    """

    repr_fields: ClassVar = ("node", "state")

    node: Line
    state: str
    epoch: int
    revision: int
    level: int
    version: Line = ""
    policy: Line = ""
    log_id: Line = ""


class NodeList(Record, frozen=True, kw_only=True):
    """
    All nodes of a cluster, by name.

    Attributes:
        node: The node that answers.
        revision: Newest change that it has applied.
    """

    node: Line
    revision: int
    items: tuple[NodeInfo, ...]


class ClusterStatus(Record, frozen=True, kw_only=True):
    """
    State of the cluster, as one node sees it.

    Attributes:
        node: Name of this node; empty on a single machine.
        decides: Whether it serves: it is not fenced and reaches the database.
        revision: Newest change that it has applied.
        feed_lag_seconds: Time since it last read the newest change.
        nodes_live: Live nodes, this one included.
        policies: Number of different policies in force on live nodes.
        level: Newest formats that all nodes may write.
        has_standby: Whether a commit waits for a synchronous standby. Without one, an
            acknowledged change can be lost by a fail-over; the HSM then locks.
        mark_problem: Why the node would not notice an older database after its next
            start, such as a last-seen mark that is gone; empty if it would.
        clock_difference_seconds: By how much the clock is ahead of the database's.
        group_retries: Groups of records that a change has made the node decide again.
    """

    node: Line = ""
    decides: bool = True
    revision: int = 0
    feed_lag_seconds: float = 0.0
    nodes_live: int = 0
    policies: int = 0
    level: int = 0
    has_standby: bool = False
    mark_problem: Line = ""
    clock_difference_seconds: float = 0.0
    group_retries: int = 0


class ListNodes(Operation[NodeList], frozen=True, kw_only=True):
    """List the nodes of the cluster, with the state of each."""

    effect: ClassVar = Effect.READ
    while_locked: ClassVar = True
    route: ClassVar = Route("GET", "/cluster/nodes")


class RetireNode(Operation[NodeList], frozen=True, kw_only=True):
    """
    Remove a stopped node from the list of nodes, and return the others.

    Its audit log is kept, and its name may be used again.

    Attributes:
        node: Name of a node that is stopped.
    """

    node: Annotated[str, Meta(min_length=1, max_length=64)]
    effect: ClassVar = Effect.VIEW
    while_locked: ClassVar = True
    route: ClassVar = Route(
        "POST",
        "/cluster/nodes/{node}/retire",
        example={"node": "b"},
    )
