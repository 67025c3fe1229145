# SPDX-License-Identifier: MIT
"""Group ``operator``: self-tests, backup, recovery and nodes."""

from __future__ import annotations

import click

from hsm_cli.groups import LazyGroup


@click.group(
    "operator",
    cls=LazyGroup,
    no_args_is_help=False,
    listing={
        "selftest": ("status.selftest", "Run all self-tests now."),
        "backup": ("store.back_up", "Back up the server's SQLite databases."),
        "nodes": ("nodes.nodes", "List and retire the nodes of a cluster."),
        "store": ("store.store", "Verify and recover the key store."),
    },
)
def operator() -> None:
    """Self-tests, backup, recovery and nodes of the HSM."""
