# SPDX-License-Identifier: MIT
"""Subcommands of ``profile``."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from hsm_cli.invocation import Invocation
from hsm_cli.io.tables import Column
from hsm_cli.options import Group
from hsm_cli.parameters import LocalCommand
from hsm_client.profiles import (
    Profile,
    choose_profile,
    default_profile_name,
    load_profiles,
)
from hsm_core.errors import ConfigurationError
from hsm_core.model import Record


class ProfileRow(Record, frozen=True, kw_only=True):
    """
    Profile in the JSON output.

    Attributes:
        used: Whether commands without ``--profile`` use it.
    """

    name: str
    endpoint: str
    credential: str
    used: bool


class ProfileList(Record, frozen=True, kw_only=True):
    """List of profiles in the JSON output."""

    items: tuple[ProfileRow, ...]


@click.group("profile", cls=Group, no_args_is_help=False)
def profile() -> None:
    """
    List, choose and show connection profiles.

    A profile has the endpoint, the CA and the credential of a server. `hsm-cli login`
    adds one. Flags and environment variables take precedence over it.
    """


@profile.command("list", cls=LocalCommand)
@click.pass_obj
def list_profiles(invocation: Invocation) -> None:
    """List profiles; * marks the one in use."""
    profiles = load_profiles()
    used = default_profile_name(profiles)
    rows = [
        ProfileRow(
            name=name,
            endpoint=found.endpoint,
            credential=found.credential.value,
            used=name == used,
        )
        for name, found in profiles.by_name.items()
    ]
    invocation.output.table(
        ProfileList(items=tuple(rows)),
        rows,
        (
            Column("Name", lambda row: row.name),
            Column("Endpoint", lambda row: row.endpoint),
            Column("Credential", lambda row: row.credential),
            Column("Used", lambda row: "*" if row.used else ""),
        ),
        "" if rows else "no profiles; to add one, run hsm-cli login",
    )


@profile.command("use", cls=LocalCommand)
@click.argument("name")
@click.pass_obj
def use(invocation: Invocation, name: str) -> None:
    """Use profile NAME for commands without --profile."""
    # It loads a TOML library, which other commands do not need.
    from hsm_cli.actions.profile_file import use_profile

    found = use_profile(name)
    invocation.output.record(_table(found), f"Using profile {name}: {found.endpoint}")


@profile.command("show", cls=LocalCommand)
@click.argument("name", required=False)
@click.pass_context
def show(ctx: click.Context, name: str | None) -> None:
    """Show profile NAME, or the one in use."""
    invocation: Invocation = ctx.obj
    found = choose_profile(name or ctx.find_root().params["profile"])
    if found is None:
        raise ConfigurationError(
            "No profile is in use. To add one, run hsm-cli login.", field="profile"
        )
    table = _table(found)
    words = [
        (key, " ".join(value) if isinstance(value, list) else str(value))
        for key, value in table.items()
    ]
    invocation.output.pairs(table, words)


def _table(found: Profile) -> dict[str, Any]:
    """Return the keys and values of a profile."""
    table: dict[str, Any] = msgspec.to_builtins(found, enc_hook=str)
    return table
