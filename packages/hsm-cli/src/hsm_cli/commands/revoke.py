# SPDX-License-Identifier: MIT
"""The command ``revoke``."""

from __future__ import annotations

from datetime import datetime

import click

from hsm_cli.actions.key_changes import change_key
from hsm_cli.actions.options import (
    HSMCommand,
    generation_option,
    idempotency_option,
)
from hsm_cli.invocation import Invocation
from hsm_cli.io.operands import key_operand
from hsm_cli.options.parameter_types import Instant
from hsm_core.operations import RevokeKey


@click.command("revoke", cls=HSMCommand)
@key_operand
@click.option(
    "--version",
    type=click.IntRange(min=1),
    metavar="N",
    help="Revoke only this version and others with the same material. Default: all.",
)
@click.option(
    "--reason",
    default="",
    metavar="TEXT",
    help="Reason; stored with the key and in the audit log.",
)
@click.option(
    "--compromised-at",
    type=Instant(),
    metavar="TIME",
    help="Time of the compromise, such as 2026-01-31T12:00:00Z; stored with the key.",
)
@idempotency_option
@generation_option
@click.pass_obj
def command(
    invocation: Invocation,
    key_id: str,
    version: int | None,
    reason: str,
    compromised_at: datetime | None,
    idempotency_key: str | None,
) -> None:
    """Revoke a key version or a whole key as compromised. Irreversible."""
    operation = RevokeKey(
        key_id=key_id, version=version, reason=reason, compromised_at=compromised_at
    )
    change_key(invocation, operation, idempotency_key)
