# SPDX-License-Identifier: MIT
"""Commands of the key life cycle: rotate, suspend, revoke, destroy and more."""

from __future__ import annotations

import sys
from datetime import datetime

import click

from hsm_cli.invocation import Invocation
from hsm_cli.io.output import neutral
from hsm_cli.options import Instant
from hsm_cli.parameters import (
    ChangeCommand,
    key_operand,
)
from hsm_core.operations import (
    ActivateKey,
    CancelDestroy,
    DescribeKey,
    DestroyKey,
    ResumeKey,
    RevokeKey,
    Rollback,
    RotateKey,
    SetRotation,
    SuspendKey,
)


@click.command("rotate", cls=ChangeCommand)
@key_operand
@click.option(
    "--staged",
    is_flag=True,
    help="Stage the new version; the old one stays current until activate.",
)
@click.pass_obj
def rotate(invocation: Invocation, key_id: str, staged: bool) -> None:
    """Rotate a key: create a new version. Old versions still decrypt and verify."""
    invocation.change_key(RotateKey(key_id=key_id, staged=staged))


@click.command("activate", cls=ChangeCommand)
@key_operand
@click.option(
    "--version",
    type=click.IntRange(min=1),
    metavar="N",
    help="Activate only if this is the staged version.",
)
@click.pass_obj
def activate(
    invocation: Invocation,
    key_id: str,
    version: int | None,
) -> None:
    """Activate the staged version of a key. The previous version is retired."""
    invocation.change_key(ActivateKey(key_id=key_id, version=version))


@click.command("rollback", cls=ChangeCommand)
@key_operand
@click.option(
    "--version",
    type=click.IntRange(min=1),
    required=True,
    metavar="N",
    help="Version whose material to reuse.",
)
@click.pass_obj
def rollback(invocation: Invocation, key_id: str, version: int) -> None:
    """Roll back to an older version: create a new version with its material."""
    invocation.change_key(Rollback(key_id=key_id, version=version))


@click.command("suspend", cls=ChangeCommand)
@key_operand
@click.option(
    "--reason",
    default="",
    metavar="TEXT",
    help="Reason; stored with the key and in the audit log.",
)
@click.pass_obj
def suspend(invocation: Invocation, key_id: str, reason: str) -> None:
    """
    Suspend the current version.

    Only its public key stays available until you resume it.
    """
    invocation.change_key(SuspendKey(key_id=key_id, reason=reason))


@click.command("resume", cls=ChangeCommand)
@key_operand
@click.pass_obj
def resume(invocation: Invocation, key_id: str) -> None:
    """Resume a suspended key version."""
    invocation.change_key(ResumeKey(key_id=key_id))


@click.command("revoke", cls=ChangeCommand)
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
@click.pass_obj
def revoke(
    invocation: Invocation,
    key_id: str,
    version: int | None,
    reason: str,
    compromised_at: datetime | None,
) -> None:
    """Revoke a key version or a whole key as compromised. Irreversible."""
    operation = RevokeKey(
        key_id=key_id, version=version, reason=reason, compromised_at=compromised_at
    )
    invocation.change_key(operation)


@click.command("destroy", cls=ChangeCommand)
@key_operand
@click.option(
    "--waiting-days",
    type=click.IntRange(0, 3650),
    metavar="DAYS",
    help="Waiting period in days. Until it ends the key is disabled, and "
    "cancel-destroy restores it. Default: the server's setting.",
)
@click.option("--yes", is_flag=True, help="Skip the confirmation prompt.")
@click.pass_obj
def destroy(
    invocation: Invocation,
    key_id: str,
    waiting_days: int | None,
    yes: bool,
) -> None:
    """Destroy all material of a key. Irreversible. Prompts for the key's name."""
    if not yes:
        _confirm_destruction(invocation, key_id)
    invocation.change_key(DestroyKey(key_id=key_id, waiting_days=waiting_days))


def _confirm_destruction(invocation: Invocation, key_id: str) -> None:
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


@click.command("cancel-destroy", cls=ChangeCommand)
@key_operand
@click.pass_obj
def cancel_destroy(invocation: Invocation, key_id: str) -> None:
    """Cancel a scheduled destruction. The key returns to its previous state."""
    invocation.change_key(CancelDestroy(key_id=key_id))


@click.command("set-rotation", cls=ChangeCommand)
@key_operand
@click.option(
    "--max-age-days",
    type=click.IntRange(1, 36_500),
    metavar="DAYS",
    help="Rotate when the current version has been active for this many days.",
)
@click.option(
    "--max-uses",
    type=click.IntRange(min=1),
    metavar="N",
    help="Rotate when the key material has been used this many times to protect data.",
)
@click.option("--off", is_flag=True, help="Turn automatic rotation off.")
@click.pass_obj
def set_rotation(
    invocation: Invocation,
    key_id: str,
    max_age_days: int | None,
    max_uses: int | None,
    off: bool,
) -> None:
    """Configure automatic rotation. Replaces both limits."""
    if off == (max_age_days is not None or max_uses is not None):
        raise click.UsageError("Pass --max-age-days, --max-uses or both, or --off.")
    invocation.change_key(
        SetRotation(key_id=key_id, max_age_days=max_age_days, max_uses=max_uses)
    )
