# SPDX-License-Identifier: MIT
"""Commands about the signed-in user."""

from __future__ import annotations

import click

from hsm_cli.invocation import Invocation
from hsm_cli.io.results import words
from hsm_cli.parameters import HSMCommand
from hsm_core.operations import CallerInfo, DescribeCaller


@click.command("whoami", cls=HSMCommand)
@click.pass_obj
def whoami(invocation: Invocation) -> None:
    """Show the principal and the roles that the server gives you."""
    found = invocation.execute(DescribeCaller())
    invocation.output.pairs(found, _pairs(found))


def _pairs(found: CallerInfo) -> list[tuple[str, str]]:
    return [
        ("principal", found.principal),
        ("roles", words(found.roles)),
        ("credential", found.credential_id),
        ("certificate", found.certificate_subject),
        ("address", found.source_address),
    ]
