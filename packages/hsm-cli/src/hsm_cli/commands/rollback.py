# SPDX-License-Identifier: MIT
"""The command ``rollback``."""

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
from hsm_core.operations import Rollback


@click.command("rollback", cls=HSMCommand)
@key_operand
@click.option(
    "--version",
    type=click.IntRange(min=1),
    required=True,
    metavar="N",
    help="Version whose material to reuse.",
)
@idempotency_option
@generation_option
@click.pass_obj
def command(
    invocation: Invocation, key_id: str, version: int, idempotency_key: str | None
) -> None:
    """Roll back to an older version: create a new version with its material."""
    operation = Rollback(key_id=key_id, version=version)
    change_key(invocation, operation, idempotency_key)
