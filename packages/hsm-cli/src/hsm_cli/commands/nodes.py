# SPDX-License-Identifier: MIT
"""Subcommands of ``nodes``."""

from __future__ import annotations

import click

from hsm_cli.invocation import Invocation
from hsm_cli.io.tables import Column
from hsm_cli.options import Group
from hsm_cli.parameters import HSMCommand
from hsm_core.operations.cluster import ListNodes, NodeList, RetireNode

_COLUMNS = (
    Column("Node", lambda row: row.node),
    Column("State", lambda row: row.state),
    Column("Epoch", lambda row: str(row.epoch)),
    Column("Revision", lambda row: str(row.revision)),
    Column("Level", lambda row: str(row.level)),
    Column("Version", lambda row: row.version),
    Column("Policy", lambda row: row.policy[:12]),
)


@click.group("nodes", cls=Group, no_args_is_help=False)
def nodes() -> None:
    """List the nodes of the cluster and retire stopped nodes."""


@nodes.command("list", cls=HSMCommand)
@click.pass_obj
def list_nodes(invocation: Invocation) -> None:
    """
    List the nodes of the cluster.

    Another node settles a dead node's unfinished work within ten seconds and marks the
    node as stopped.
    """
    _show(invocation, invocation.execute(ListNodes()))


@nodes.command("retire", cls=HSMCommand)
@click.argument("node")
@click.pass_obj
def retire(invocation: Invocation, node: str) -> None:
    """
    Remove a stopped node from the list, and print the others.

    Its audit log is kept. A node of the same name may join again.
    """
    _show(invocation, invocation.execute(RetireNode(node=node)))


def _show(invocation: Invocation, found: NodeList) -> None:
    total = f"answered by {found.node} at revision {found.revision}"
    invocation.output.table(found, found.items, _COLUMNS, total)
