# SPDX-License-Identifier: MIT
"""The command ``rotate``."""

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
from hsm_core.operations import RotateKey


@click.command("rotate", cls=HSMCommand)
@key_operand
@click.option(
    "--staged",
    is_flag=True,
    help="Stage the new version; the old one stays current until activate.",
)
@idempotency_option
@generation_option
@click.pass_obj
def command(
    invocation: Invocation, key_id: str, staged: bool, idempotency_key: str | None
) -> None:
    """Rotate a key: create a new version. Old versions still decrypt and verify."""
    operation = RotateKey(key_id=key_id, staged=staged)
    change_key(invocation, operation, idempotency_key)
