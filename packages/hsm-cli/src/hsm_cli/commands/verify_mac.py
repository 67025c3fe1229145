# SPDX-License-Identifier: MIT
"""The command ``verify-mac``."""

from __future__ import annotations

import click

from hsm_cli.files import Source
from hsm_cli.invocation import Invocation
from hsm_cli.options import HSMCommand, payload_operands, proof_options, version_option
from hsm_core.operations import VerifyMac

__all__ = ["command"]


@click.command("verify-mac", cls=HSMCommand)
@payload_operands("payload")
@proof_options("mac")
@version_option
@click.pass_obj
def command(
    invocation: Invocation,
    key_id: str,
    source: Source,
    proof: Source,
    version: int | None,
) -> None:
    """Check a MAC, of any version unless one is named. A wrong one: exit 6."""
    found = invocation.execute(
        VerifyMac(
            key_id=key_id, message=source.read(), mac=proof.read(), version=version
        )
    )
    invocation.output.record(
        found, f"The MAC is good; version {found.version} made it."
    )
