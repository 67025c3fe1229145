# SPDX-License-Identifier: MIT
"""The commands below ``store``."""

from __future__ import annotations

import sys
from typing import Final

import click

from hsm_cli.actions.options import HSMCommand
from hsm_cli.invocation import Invocation
from hsm_cli.io.terminal import neutral
from hsm_cli.options.parameter_types import Group
from hsm_core.errors import StoreMismatchError
from hsm_core.operations import (
    BackUpStores,
    KeyFinding,
    Recovered,
    RecoverKey,
    RecoverStore,
    Status,
    VerifyStore,
)

_SECONDS: Final = 600.0
"""A whole store is read; this bounds a silent network, not the comparison."""

_ANSWER: Final = "recover"


@click.group("store", cls=Group, no_args_is_help=False)
def command() -> None:
    """Compare the key store with the trail, back it up, and recover it."""


@command.command("verify", cls=HSMCommand)
@click.pass_obj
def verify(invocation: Invocation) -> None:
    """
    Compare every key with the trail, and every blob with its document, now.

    A key that is not as it should be: exit 7, and each is named with its problem.
    """
    invocation.wait_at_least(_SECONDS)
    report = invocation.execute(VerifyStore())
    count = f"{report.keys} keys compared"
    invocation.output.table(report, ("Key", "Problem"), _rows(report.findings), count)
    if report.findings:
        raise StoreMismatchError(
            f"{len(report.findings)} of {report.keys} keys are not as they should be."
        )


@command.command("back-up", cls=HSMCommand)
@click.pass_obj
def back_up(invocation: Invocation) -> None:
    """
    Copy the server's SQLite databases into its backup directory, while it serves.

    Keys and trail agree in the copies. Stores of other kinds are not copied.
    """
    invocation.wait_at_least(_SECONDS)
    made = invocation.execute(BackUpStores())
    invocation.output.table(
        made,
        ("File", "Bytes", "SHA-256"),
        [(file.name, str(file.size), file.sha256) for file in made.files],
        f"in {made.folder}, with the trail up to record {made.head_seq}",
    )


@command.command("recover", cls=HSMCommand)
@click.option(
    "--reason",
    required=True,
    metavar="TEXT",
    help="Why; stands in the audit trail.",
)
@click.option("--key-id", metavar="KEY", help="Recover this key alone, by its id.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def recover(invocation: Invocation, reason: str, key_id: str | None, yes: bool) -> None:
    """
    Accept the store, or one key, as it is now, and unlock it.

    For a store of which an older copy was put back on purpose. Each key that this is
    about gets its record. Recovered keys for authenticated encryption must be rotated
    before they encrypt again.
    """
    if key_id == "":
        # A variable that is not set must not stand for the whole store.
        raise click.BadParameter("must be the id of a key.", param_hint="--key-id")
    if not yes:
        _ask(invocation, key_id)
    invocation.wait_at_least(_SECONDS)
    found = invocation.execute(
        RecoverKey(key_id=key_id, reason=reason)
        if key_id is not None
        else RecoverStore(reason=reason)
    )
    invocation.output.table(found, ("Key", "Now"), _states(found), _sum(found))


def _ask(invocation: Invocation, key_id: str | None) -> None:
    store = invocation.execute(Status()).store
    if store.locked:
        click.echo(neutral(store.locked), err=True)
    for finding in store.findings:
        if key_id in {None, finding.key_id}:
            click.echo(neutral(f"{finding.key_id}: {finding.problem}"), err=True)
    what = f"Key {neutral(key_id)}" if key_id else "The whole key store"
    click.echo(
        f"{what} will be taken for right as it is now.\nType {_ANSWER} to go on: ",
        nl=False,
        err=True,
    )
    typed = sys.stdin.readline() if sys.stdin is not None else ""
    if typed.strip() != _ANSWER:
        raise click.UsageError("Nothing was recovered. Use --yes not to be asked.")


def _rows(findings: tuple[KeyFinding, ...]) -> list[tuple[str, str]]:
    return [(finding.key_id, finding.problem) for finding in findings]


def _states(found: Recovered) -> list[tuple[str, str]]:
    return [
        *((key_id, "accepted") for key_id in found.accepted),
        *((key_id, "forgotten") for key_id in found.forgotten),
        *((key_id, "still locked") for key_id in found.left),
    ]


def _sum(found: Recovered) -> str:
    return (
        f"{len(found.accepted)} accepted, {len(found.forgotten)} forgotten, "
        f"{len(found.left)} still locked"
    )
