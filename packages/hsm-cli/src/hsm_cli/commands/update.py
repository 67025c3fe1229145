# SPDX-License-Identifier: MIT
"""The command ``update``."""

from __future__ import annotations

import click

from hsm_cli.actions.key_changes import change_key
from hsm_cli.actions.options import (
    HSMCommand,
    generation_option,
    idempotency_option,
)
from hsm_cli.invocation import Invocation
from hsm_cli.io.operands import key_operand
from hsm_cli.options.parameter_types import ListOption, none_unless_given
from hsm_core.operations import UpdateKey


@click.command("update", cls=HSMCommand)
@key_operand
@click.option("--name", metavar="NAME", help="New unique name; empty removes the name.")
@click.option("--description", metavar="TEXT", help="New description.")
@click.option("--owner", metavar="NAME", help="New owner.")
@click.option(
    "--tags",
    cls=ListOption,
    may_be_empty=True,
    callback=none_unless_given,
    metavar="TAGS",
    help="New tags, which replace all others; repeatable or comma-separated. Empty "
    "removes all tags.",
)
@idempotency_option
@generation_option
@click.pass_obj
def command(
    invocation: Invocation,
    key_id: str,
    name: str | None,
    description: str | None,
    owner: str | None,
    tags: tuple[str, ...] | None,
    idempotency_key: str | None,
) -> None:
    """Edit a key's name, description, owner or tags. Other fields stay unchanged."""
    operation = UpdateKey(
        key_id=key_id, name=name, description=description, owner=owner, tags=tags
    )
    change_key(invocation, operation, idempotency_key)
