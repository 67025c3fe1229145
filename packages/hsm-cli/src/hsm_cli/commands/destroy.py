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
    help="Let it wait so long, in which it serves nothing and can be given back; else "
    "as long as the server asks for.",
)
@click.option("--yes", is_flag=True, help="Do not ask.")
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
    """Destroy all material of a key, for ever. Asks for the key's name first."""
    if not yes:
        _ask(invocation, key_id)
    operation = DestroyKey(key_id=key_id, waiting_days=waiting_days)
    change_key(invocation, operation, idempotency_key)


def _ask(invocation: Invocation, key_id: str) -> None:
    key = invocation.execute(DescribeKey(key_id=key_id))
    wanted = key.name or key.key_id
    click.echo(
        f"All {key.version} versions of the {key.algorithm} key {neutral(wanted)} "
        f"will be destroyed for ever.\nType {neutral(wanted)} to go on: ",
        nl=False,
        err=True,
    )
    typed = sys.stdin.readline() if sys.stdin is not None else ""
    if not typed:
        raise click.UsageError(
            "Nothing was destroyed: standard input has no answer. Use --yes."
        )
    if typed.strip() != wanted:
        raise click.UsageError("Nothing was destroyed: that is another name.")
