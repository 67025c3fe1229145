# SPDX-License-Identifier: MIT
"""The command ``set-rotation``."""

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
from hsm_core.operations import SetRotation


@click.command("set-rotation", cls=HSMCommand)
@key_operand
@click.option(
    "--max-age-days",
    type=click.IntRange(1, 36_500),
    metavar="DAYS",
    help="Rotate when the current version has been active for this many days.",
)
@click.option(
    "--max-uses",
    type=click.IntRange(min=1),
    metavar="N",
    help="Rotate when the key material has been used this many times to protect data.",
)
@click.option("--off", is_flag=True, help="Turn automatic rotation off.")
@idempotency_option
@generation_option
@click.pass_obj
def command(
    invocation: Invocation,
    key_id: str,
    max_age_days: int | None,
    max_uses: int | None,
    off: bool,
    idempotency_key: str | None,
) -> None:
    """Configure automatic rotation. Replaces both limits."""
    if off == (max_age_days is not None or max_uses is not None):
        raise click.UsageError("Pass --max-age-days, --max-uses or both, or --off.")
    operation = SetRotation(key_id=key_id, max_age_days=max_age_days, max_uses=max_uses)
    change_key(invocation, operation, idempotency_key)
