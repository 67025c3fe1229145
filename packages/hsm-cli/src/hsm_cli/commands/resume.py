# SPDX-License-Identifier: MIT
"""The command ``resume``."""

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
from hsm_core.operations import ResumeKey


@click.command("resume", cls=HSMCommand)
@key_operand
@idempotency_option
@generation_option
@click.pass_obj
def command(invocation: Invocation, key_id: str, idempotency_key: str | None) -> None:
    """Resume a suspended key version."""
    operation = ResumeKey(key_id=key_id)
    change_key(invocation, operation, idempotency_key)
