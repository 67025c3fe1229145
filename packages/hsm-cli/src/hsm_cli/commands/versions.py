# SPDX-License-Identifier: MIT
"""The command ``versions``."""

from __future__ import annotations

import click

from hsm_cli.actions.options import HSMCommand
from hsm_cli.invocation import Invocation
from hsm_cli.io.operands import key_operand
from hsm_cli.io.views import VERSION_HEADER, version_row
from hsm_core.operations import ListVersions


@click.command("versions", cls=HSMCommand)
@key_operand
@click.pass_obj
def command(invocation: Invocation, key_id: str) -> None:
    """List all versions of a key, oldest first."""
    found = invocation.execute(ListVersions(key_id=key_id))
    rows = [version_row(version) for version in found.items]
    invocation.output.table(found, VERSION_HEADER, rows)
