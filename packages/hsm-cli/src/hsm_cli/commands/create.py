# SPDX-License-Identifier: MIT
"""The command ``create``."""

from __future__ import annotations

import click

from hsm_cli.actions.key_changes import change_key
from hsm_cli.actions.new_keys import NewKey, new_key_options
from hsm_cli.actions.options import HSMCommand
from hsm_cli.invocation import Invocation
from hsm_cli.io.operands import one_of
from hsm_core.operations import CreateKey


@click.command("create", cls=HSMCommand)
@click.argument("algorithm", required=False, metavar="[ALGORITHM]")
@click.option(
    "--algorithm",
    "algorithm_option",
    metavar="NAME",
    help="Algorithm, in place of the argument; `algorithms` lists the names.",
)
@click.option(
    "--staged",
    is_flag=True,
    help="Stage the key: only its public key is available until activate.",
)
@new_key_options
@click.pass_obj
def command(
    invocation: Invocation,
    algorithm: str | None,
    algorithm_option: str | None,
    staged: bool,
    facts: NewKey,
    idempotency_key: str | None,
) -> None:
    """Create a key. Its first version is active unless --staged is given."""
    name = one_of(algorithm, algorithm_option, name="ALGORITHM", flag="--algorithm")
    operation = CreateKey(algorithm=name, staged=staged, **facts)
    change_key(invocation, operation, idempotency_key)
