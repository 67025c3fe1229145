# SPDX-License-Identifier: MIT
"""Nodes of a cluster: list and retire."""

from __future__ import annotations

from hsm_core import operations as ops
from hsm_core._internal.handlers.base import (
    ClusterOperations,
    HandlerDependencies,
    Speed,
    answers,
)
from hsm_core._internal.handlers.context import RequestContext
from hsm_core.errors import UnsupportedOperationError


@answers(ops.ListNodes, Speed.POOLED)
def list_nodes(
    services: HandlerDependencies, context: RequestContext[ops.ListNodes]
) -> ops.NodeList:
    """Return all nodes."""
    return _cluster_of(services).nodes()


@answers(ops.RetireNode, Speed.POOLED)
def retire_node(
    services: HandlerDependencies, context: RequestContext[ops.RetireNode]
) -> ops.NodeList:
    """Remove a stopped node, and return the others."""
    cluster = _cluster_of(services)
    cluster.retire(context.operation.node)
    return cluster.nodes()


def _cluster_of(services: HandlerDependencies) -> ClusterOperations:
    if services.cluster is None:
        raise UnsupportedOperationError(
            "This HSM has no nodes: its stores are not in a PostgreSQL database."
        )
    return services.cluster
