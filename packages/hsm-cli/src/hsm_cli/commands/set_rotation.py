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
    help="When the current version has been active for so many days.",
)
@click.option(
    "--max-uses",
    type=click.IntRange(min=1),
    metavar="N",
    help="When its material has protected something so many times.",
)
@click.option("--off", is_flag=True, help="Never by itself.")
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
    """Say when the HSM rotates a key by itself. Both limits are set anew."""
    if off == (max_age_days is not None or max_uses is not None):
        raise click.UsageError("Give --max-age-days, --max-uses or both, or --off.")
    operation = SetRotation(key_id=key_id, max_age_days=max_age_days, max_uses=max_uses)
    change_key(invocation, operation, idempotency_key)
