# SPDX-License-Identifier: MIT
"""
Subcommands of ``people``, on the directory of an HSM.

They need no server: write access to the directory decides who its people are.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import click

from hsm_cli.invocation import Invocation
from hsm_cli.io.output import print_note
from hsm_cli.io.results import instant
from hsm_cli.io.tables import Column
from hsm_cli.options import Group, ListOption, choice
from hsm_cli.parameters import LocalCommand
from hsm_core.model import Record, Role
from hsm_core.people import CREDENTIAL_DAYS, People, Person

F = TypeVar("F", bound=Callable[..., Any])


class AddedPerson(Record, frozen=True, kw_only=True):
    """
    Result of ``people add``.

    Attributes:
        name: Principal.
        roles: Roles.
        credential: PKCS#12 file.
        password_file: File of its password; empty if it was shown.
    """

    name: str
    roles: tuple[Role, ...]
    credential: str
    password_file: str = ""


class ListedPeople(Record, frozen=True, kw_only=True):
    """Result of ``people list``."""

    people: tuple[Person, ...]


class RemovedPerson(Record, frozen=True, kw_only=True):
    """Result of ``people remove``."""

    name: str


@click.group("people", cls=Group, no_args_is_help=False)
def people() -> None:
    """
    List, add and remove people who sign in with credentials of the private CA.

    Run it on the server's machine, for a directory that 'hsm-server init' created.
    """


def _directory_option(command: F) -> F:
    return click.option(
        "--directory",
        metavar="DIR",
        type=click.Path(path_type=Path, file_okay=False),
        default=Path(),
        envvar="FERROHSM_DIRECTORY",
        show_envvar=True,
        help="Directory of the HSM. Default: the current one.",
    )(command)


@people.command("list", cls=LocalCommand)
@_directory_option
@click.pass_obj
def list_people(invocation: Invocation, directory: Path) -> None:
    """List people, their roles, and the expiry of their certificates."""
    found = People(directory).all()
    now = datetime.now(UTC).timestamp()
    invocation.output.table(
        ListedPeople(people=found),
        found,
        (
            Column("Name", lambda one: one.name),
            Column("Roles", lambda one: ", ".join(one.roles)),
            Column("Expires", lambda one: _end(one, now)),
        ),
    )


def _end(person: Person, now: float) -> str:
    if not person.expires_at:
        return "no certificate of the private CA"
    end = instant(datetime.fromtimestamp(person.expires_at, UTC))
    return end if person.expires_at > now else f"expired {end}"


@people.command("add", cls=LocalCommand)
@click.argument("name")
@click.option(
    "--role",
    "roles",
    type=choice(Role),
    metavar="ROLE",
    cls=ListOption,
    help="Role of the person; repeatable or comma-separated. Required without "
    "--replace.",
)
@click.option(
    "--days",
    metavar="DAYS",
    type=click.IntRange(1, 3650),
    default=CREDENTIAL_DAYS,
    show_default=True,
    help="Lifetime of the certificate, in days.",
)
@click.option(
    "--replace",
    is_flag=True,
    help="Replace the credential of an existing person, and the roles if given. The "
    "former certificate is revoked.",
)
@_directory_option
@click.pass_obj
def add(
    invocation: Invocation,
    name: str,
    roles: tuple[Role, ...],
    days: int,
    replace: bool,
    directory: Path,
) -> None:
    """
    Add a person, and create a credential: a PKCS#12 file with a password.

    On a terminal the password is shown once. Otherwise it is written to a file beside
    the credential.
    """
    output = invocation.output
    shows = output.is_terminal and not output.is_record
    members = People(directory)
    made = members.add(
        name,
        tuple(dict.fromkeys(roles)),
        days=days,
        keeps_password=not shows,
        replaces=replace,
    )
    named = next(person.roles for person in members.all() if person.name == name)
    file = made.password_file
    output.pairs(
        AddedPerson(
            name=name,
            roles=named,
            credential=str(made.credential),
            password_file=str(file) if file else "",
        ),
        [
            ("Name", name),
            ("Roles", ", ".join(named)),
            ("Credential", str(made.credential)),
            ("Password", f"{made.password}  (shown once)" if shows else f"in {file}"),
        ],
    )


@people.command("remove", cls=LocalCommand)
@click.argument("name")
@_directory_option
@click.pass_obj
def remove(invocation: Invocation, name: str, directory: Path) -> None:
    """
    Remove a person, and revoke their certificate.

    A running server rejects their requests within a second, also on open connections.
    Approvals that they gave no longer count.
    """
    members = People(directory)
    members.remove(name)
    invocation.output.record(RemovedPerson(name=name), f"Removed {name}.")
    left = members.all()
    if not any(Role.ADMINISTRATOR in person.roles for person in left):
        print_note("note: no Administrator is left.")
    elif len(left) == 1:
        print_note("note: one person is left, so nobody can approve requests.")
