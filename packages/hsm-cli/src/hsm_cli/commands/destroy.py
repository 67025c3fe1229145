# SPDX-License-Identifier: MIT
"""The command ``destroy``."""

from __future__ import annotations

import sys

import click

from hsm_cli.actions.key_changes import change_key
from hsm_cli.actions.options import (
    HSMCommand,
    generation_option,
    idempotency_option,
)
from hsm_cli.invocation import Invocation
from hsm_cli.io.operands import key_operand
from hsm_cli.io.terminal import neutral
from hsm_core.operations import DescribeKey, DestroyKey


@click.command("destroy", cls=HSMCommand)
@key_operand
@click.option(
    "--waiting-days",
    type=click.IntRange(0, 3650),
    metavar="DAYS",
    help="Waiting period in days. Until it ends the key is disabled, and "
    "cancel-destroy restores it. Default: the server's setting.",
)
@click.option("--yes", is_flag=True, help="Skip the confirmation prompt.")
@idempotency_option
@generation_option
@click.pass_obj
def command(
    invocation: Invocation,
    key_id: str,
    waiting_days: int | None,
    yes: bool,
    idempotency_key: str | None,
) -> None:
    """Destroy all material of a key. Irreversible. Prompts for the key's name."""
    if not yes:
        _confirm(invocation, key_id)
    operation = DestroyKey(key_id=key_id, waiting_days=waiting_days)
    change_key(invocation, operation, idempotency_key)


def _confirm(invocation: Invocation, key_id: str) -> None:
    key = invocation.execute(DescribeKey(key_id=key_id))
    wanted = key.name or key.key_id
    click.echo(
        f"All {key.version} versions of the {key.algorithm} key {neutral(wanted)} "
        "will be destroyed. This can't be undone.\n"
        f"Type {neutral(wanted)} to continue: ",
        nl=False,
        err=True,
    )
    typed = sys.stdin.readline() if sys.stdin is not None else ""
    if not typed:
        raise click.UsageError(
            "Nothing was destroyed: no confirmation on standard input. Use --yes."
        )
    if typed.strip() != wanted:
        raise click.UsageError("Nothing was destroyed: the name does not match.")
