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
    help="Let the old version stay current, until the new one is activated.",
)
@idempotency_option
@generation_option
@click.pass_obj
def command(
    invocation: Invocation, key_id: str, staged: bool, idempotency_key: str | None
) -> None:
    """Make a new version; the old one still decrypts and verifies."""
    operation = RotateKey(key_id=key_id, staged=staged)
    change_key(invocation, operation, idempotency_key)
