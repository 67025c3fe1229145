# SPDX-License-Identifier: MIT
"""Output of ``hsm-server init``: steps, keys and credentials, and next commands."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from shlex import quote

import click

from hsm_core.people import NewPerson
from hsm_core.secret_input import fingerprint
from hsm_server.init.plan import AUDIT_FILE, ROOT_FILE, SETTINGS_FILE, HSMPlan
from hsm_server.text import escaped


def tick(text: str) -> None:
    """Print a step that is done."""
    click.echo(f"  {_mark()} {text}")


def _mark() -> str:
    try:
        "✓".encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return "*"
    return "✓"


def show_secrets(
    plan: HSMPlan, root: bytes, people: Sequence[NewPerson], *, shows_passwords: bool
) -> None:
    """
    Print where keys and credentials are, and who gets them.

    Args:
        plan: Plan of the HSM.

        root: Root key, of which the fingerprint is shown.

        people: People with their credentials.

        shows_passwords: Whether to print the passwords, on a terminal.
    """
    held = ROOT_FILE if plan.root is None else escaped(str(plan.root))
    rows = [
        (
            "Copy to a safe place",
            held,
            f"opens every key; fingerprint {fingerprint(root)}",
        ),
        (
            "Copy for your auditor",
            AUDIT_FILE,
            "verifies the audit log, and can forge it",
        ),
    ]
    for person in people:
        name = person.credential.name.removesuffix(".p12")
        password = person.password
        if person.password_file is not None:
            password = f"password in people/{person.password_file.name}"
        rows.append(
            (
                f"Give to {name}, with password",
                f"people/{person.credential.name}",
                password,
            )
        )
    click.echo()
    widths = [max(len(row[column]) for row in rows) for column in (0, 1)]
    for first, second, third in rows:
        click.echo(f"{first:{widths[0]}}  {second:{widths[1]}}  {third}")
    if shows_passwords:
        click.echo("Passwords are shown once.")


def show_next_steps(plan: HSMPlan) -> None:
    """Print what the policy asks, and the commands that come next."""
    # A line break does no harm, and the commands need it.
    lines = str(plan.directory).split("\n")
    directory = Path("\n".join(map(escaped, lines)))
    if plan.second:
        click.echo(
            f"Destroying, exporting and revoking keys require both {plan.admin} and "
            f"{plan.second}.\nAnyone who can write to {directory} can change the "
            "policy."
        )
    else:
        click.echo(
            "Dual control is off. To turn it on: hsm-cli people add NAME --role "
            f"Operator --role Auditor\n--directory {quote(str(directory))}, and "
            "uncomment the rules in policy.yaml."
        )
    click.echo()
    settings = quote(str(directory / SETTINGS_FILE))
    credential = quote(str(directory / "people" / f"{plan.admin}.p12"))
    click.echo(f"Start:    hsm-server serve --config {settings}")
    click.echo(f"Sign in:  hsm-cli login {plan.url} --credential {credential}")
    click.echo(f"Check:    hsm-server check --config {settings} --root-copy COPY")
    if _is_lost():
        here = quote(str(directory))
        click.echo(f"\nYour shell is in the old, empty directory. Run: cd {here}")


def _is_lost() -> bool:
    """Return whether the working directory was replaced."""
    try:
        return not os.path.samefile(os.getcwd(), ".")
    except FileNotFoundError:
        return True
