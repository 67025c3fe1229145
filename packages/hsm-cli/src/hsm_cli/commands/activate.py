# SPDX-License-Identifier: MIT
"""The command ``activate``."""

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
from hsm_core.operations import ActivateKey


@click.command("activate", cls=HSMCommand)
@key_operand
@click.option(
    "--version",
    type=click.IntRange(min=1),
    metavar="N",
    help="Activate only if this is the staged version.",
)
@idempotency_option
@generation_option
@click.pass_obj
def command(
    invocation: Invocation,
    key_id: str,
    version: int | None,
    idempotency_key: str | None,
) -> None:
    """Activate the staged version of a key. The previous version is retired."""
    operation = ActivateKey(key_id=key_id, version=version)
    change_key(invocation, operation, idempotency_key)
