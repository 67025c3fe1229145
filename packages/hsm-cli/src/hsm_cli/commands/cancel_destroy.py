# SPDX-License-Identifier: MIT
"""The command ``cancel-destroy``."""

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
from hsm_core.operations import CancelDestroy


@click.command("cancel-destroy", cls=HSMCommand)
@key_operand
@idempotency_option
@generation_option
@click.pass_obj
def command(invocation: Invocation, key_id: str, idempotency_key: str | None) -> None:
    """Cancel a scheduled destruction. The key returns to its previous state."""
    operation = CancelDestroy(key_id=key_id)
    change_key(invocation, operation, idempotency_key)
