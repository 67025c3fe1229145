# SPDX-License-Identifier: MIT
"""The command ``suspend``."""

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
from hsm_core.operations import SuspendKey


@click.command("suspend", cls=HSMCommand)
@key_operand
@click.option(
    "--reason",
    default="",
    metavar="TEXT",
    help="Reason; stored with the key and in the audit log.",
)
@idempotency_option
@generation_option
@click.pass_obj
def command(
    invocation: Invocation, key_id: str, reason: str, idempotency_key: str | None
) -> None:
    """
    Suspend the current version.

    Only its public key stays available until you resume it.
    """
    operation = SuspendKey(key_id=key_id, reason=reason)
    change_key(invocation, operation, idempotency_key)
