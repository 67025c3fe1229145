# SPDX-License-Identifier: MIT
"""Commands of the key life cycle: rotate, suspend, revoke, destroy and more."""

from __future__ import annotations

import click

from hsm_cli.invocation import Invocation
from hsm_cli.io.output import ask, neutral
from hsm_cli.io.results import counted
from hsm_cli.options import Group, Instant
from hsm_cli.parameters import (
    ChangeCommand,
    change_command,
    key_operand,
    reason_option,
    version_option,
)
from hsm_core.operations.keys import (
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

_KEPT = reason_option("stored with the key and in the audit log")


@change_command(
    "rotate",
    RotateKey,
    click.option(
        "--staged",
        is_flag=True,
        help="Stage the new version; the old one stays current until activate.",
    ),
)
def rotate() -> None:
    """Rotate a key: create a new version. Old versions still decrypt and verify."""


@change_command(
    "activate",
    ActivateKey,
    version_option("Activate only if this is the staged version."),
)
def activate() -> None:
    """Activate the staged version of a key. The previous version is retired."""


@change_command(
    "rollback",
    Rollback,
    version_option("Version whose material to reuse.", required=True),
)
def rollback() -> None:
    """Roll back to an older version: create a new version with its material."""


@change_command("suspend", SuspendKey, _KEPT)
def suspend() -> None:
    """
    Suspend the current version.

    Only its public key stays available until you resume it.
    """


@change_command("resume", ResumeKey)
def resume() -> None:
    """Resume a suspended key version."""


@change_command(
    "revoke",
    RevokeKey,
    version_option(
        "Revoke only this version and others with the same material. Default: all."
    ),
    _KEPT,
    click.option(
        "--compromised-at",
        type=Instant(),
        metavar="TIME",
        help="Time of the compromise, such as 2026-01-31T12:00:00Z; stored with the "
        "key.",
    ),
)
def revoke() -> None:
    """Revoke a key version or a whole key as compromised. Irreversible."""


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
    if not yes and not invocation.preview:
        _confirm_destruction(invocation, key_id)
    invocation.change_key(DestroyKey(key_id=key_id, waiting_days=waiting_days))


def _confirm_destruction(invocation: Invocation, key_id: str) -> None:
    key = invocation.prepare(DescribeKey(key_id=key_id))
    wanted = key.name or key.key_id
    typed = ask(
        f"The {key.algorithm} key {neutral(wanted)} will be destroyed, with "
        f"{counted(key.version, 'version')}. Unless a waiting period applies, this "
        "can't be undone.\n"
        f"Type {neutral(wanted)} to continue: "
    )
    if not typed:
        raise click.UsageError(
            "Nothing was destroyed: no confirmation on standard input. Use --yes."
        )
    if typed.strip() != wanted:
        raise click.UsageError("Nothing was destroyed: the name does not match.")


@change_command("cancel-destroy", CancelDestroy)
def cancel_destroy() -> None:
    """Cancel a scheduled destruction. The key returns to its previous state."""


_AGE = click.option(
    "--max-age-days",
    type=click.IntRange(1, 36_500),
    metavar="DAYS",
    help="Rotate when the current version has been active for this many days.",
)
_USES = click.option(
    "--max-uses",
    type=click.IntRange(min=1),
    metavar="N",
    help="Rotate when the key material has been used this many times to protect data.",
)


@click.group("rotation", cls=Group, no_args_is_help=False)
def rotation() -> None:
    """Configure automatic rotation."""


@rotation.command("set", cls=ChangeCommand)
@key_operand
@_AGE
@_USES
@click.pass_obj
def rotation_set(
    invocation: Invocation,
    key_id: str,
    max_age_days: int | None,
    max_uses: int | None,
) -> None:
    """Rotate a key automatically. Replaces both limits."""
    if max_age_days is None and max_uses is None:
        raise click.UsageError("Pass --max-age-days, --max-uses or both.")
    _set_rotation(invocation, key_id, max_age_days, max_uses)


@rotation.command("off", cls=ChangeCommand)
@key_operand
@click.pass_obj
def rotation_off(invocation: Invocation, key_id: str) -> None:
    """Turn automatic rotation off."""
    _set_rotation(invocation, key_id, None, None)


@click.command("set-rotation", cls=ChangeCommand)
@key_operand
@_AGE
@_USES
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
    _set_rotation(invocation, key_id, max_age_days, max_uses)


def _set_rotation(
    invocation: Invocation, key_id: str, max_age_days: int | None, max_uses: int | None
) -> None:
    invocation.change_key(
        SetRotation(key_id=key_id, max_age_days=max_age_days, max_uses=max_uses)
    )
