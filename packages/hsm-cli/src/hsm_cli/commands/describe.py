# SPDX-License-Identifier: MIT
"""The command ``describe``."""

from __future__ import annotations

import click

from hsm_cli.actions.options import HSMCommand
from hsm_cli.invocation import Invocation
from hsm_cli.io.operands import key_operand
from hsm_cli.io.views import key_pairs
from hsm_core.operations import DescribeKey


@click.command("describe", cls=HSMCommand)
@key_operand
@click.pass_obj
def command(invocation: Invocation, key_id: str) -> None:
    """Show a key's metadata, after an integrity check of its stored data."""
    key = invocation.execute(DescribeKey(key_id=key_id))
    invocation.output.pairs(key, key_pairs(key))
