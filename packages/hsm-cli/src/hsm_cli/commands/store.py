# SPDX-License-Identifier: MIT
"""Subcommands of ``store``."""

from __future__ import annotations

from copy import copy
from typing import Final

import click

from hsm_cli.invocation import Invocation
from hsm_cli.io.output import ask, neutral
from hsm_cli.io.results import counted
from hsm_cli.io.tables import Column, short_id
from hsm_cli.options import Group
from hsm_cli.parameters import HSMCommand, reason_option
from hsm_core.errors import StoreMismatchError
from hsm_core.operations.service import (
    BackUpStores,
    Recovered,
    RecoverKey,
    RecoverStore,
    Status,
    VerifyStore,
)

_SECONDS: Final = 600.0
"""Time-out for an unresponsive network; reading a whole store takes long."""

_ANSWER: Final = "recover"


@click.group("store", cls=Group, no_args_is_help=False)
def store() -> None:
    """Verify and recover the key store."""


@store.command("verify", cls=HSMCommand)
@click.pass_obj
def verify(invocation: Invocation) -> None:
    """
    Verify every key against the audit log, and every blob against its document.

    Lists each key that fails, with the problem; the exit code is then 7.
    """
    invocation.raise_timeout(_SECONDS)
    report = invocation.execute(VerifyStore())
    count = f"{counted(report.keys, 'key')} verified"
    columns = (
        Column("Key", lambda found: short_id(found.key_id), lambda f: f.key_id),
        Column("Problem", lambda found: found.problem),
    )
    invocation.output.table(report, report.findings, columns, count)
    if report.findings:
        raise StoreMismatchError(
            f"{len(report.findings)} of {report.keys} keys failed verification."
        )


@click.command("backup", cls=HSMCommand)
@click.pass_obj
def back_up(invocation: Invocation) -> None:
    """
    Back up the server's SQLite databases to its backup directory, while it runs.

    The copies of keys and audit log are consistent. Other kinds of store are not
    backed up.
    """
    invocation.raise_timeout(_SECONDS)
    made = invocation.execute(BackUpStores())
    invocation.output.table(
        made,
        made.files,
        (
            Column("File", lambda file: file.name),
            Column("Bytes", lambda file: str(file.size)),
            Column("SHA-256", lambda file: file.sha256),
        ),
        f"in {made.folder}, with the audit log up to record {made.head_seq}",
    )


_former_back_up = copy(back_up)
_former_back_up.hidden = True
store.add_command(_former_back_up, "back-up")


@store.command("recover", cls=HSMCommand)
@reason_option("recorded in the audit log", required=True)
@click.option("--key-id", metavar="KEY", help="Recover only this key (ID).")
@click.option("--yes", is_flag=True, help="Skip the confirmation prompt.")
@click.pass_obj
def recover(invocation: Invocation, reason: str, key_id: str | None, yes: bool) -> None:
    """
    Accept the current state of the store, or of one key, and unlock it.

    Use it after you restored an older copy on purpose. Each recovered key gets an audit
    record. Keys for authenticated encryption must be rotated before they encrypt again.
    """
    if key_id == "":
        # An unset shell variable must not select the whole store.
        raise click.BadParameter("must be the ID of a key.", param_hint="--key-id")
    if not yes and not invocation.preview:
        _confirm(invocation, key_id)
    invocation.raise_timeout(_SECONDS)
    found = invocation.execute(
        RecoverKey(key_id=key_id, reason=reason)
        if key_id is not None
        else RecoverStore(reason=reason)
    )
    columns = (Column("Key", lambda row: row[0]), Column("Now", lambda row: row[1]))
    invocation.output.table(found, _states(found), columns, _totals(found))


def _confirm(invocation: Invocation, key_id: str | None) -> None:
    store = invocation.execute(Status()).store
    if store.locked:
        click.echo(neutral(store.locked), err=True)
    for finding in store.findings:
        if key_id in {None, finding.key_id}:
            click.echo(neutral(f"{finding.key_id}: {finding.problem}"), err=True)
    what = f"Key {neutral(key_id)}" if key_id else "The whole key store"
    typed = ask(
        f"{what} will be accepted in its current state.\nType {_ANSWER} to continue: "
    )
    if typed.strip() != _ANSWER:
        raise click.UsageError(
            "Nothing was recovered. Use --yes to skip the confirmation."
        )


def _states(found: Recovered) -> list[tuple[str, str]]:
    return [
        *((key_id, "accepted") for key_id in found.accepted),
        *((key_id, "removed") for key_id in found.forgotten),
        *((key_id, "still locked") for key_id in found.left),
    ]


def _totals(found: Recovered) -> str:
    return (
        f"{len(found.accepted)} accepted, {len(found.forgotten)} removed, "
        f"{len(found.left)} still locked"
    )
