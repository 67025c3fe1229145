# SPDX-License-Identifier: MIT
"""The command ``open``."""

from __future__ import annotations

import click

from hsm_cli.actions.options import HSMCommand, out_option
from hsm_cli.invocation import Invocation
from hsm_cli.io.files import Source
from hsm_cli.io.operands import aad_options, payload_operands
from hsm_cli.io.results import deliver
from hsm_core.operations import Open


@click.command("open", cls=HSMCommand)
@payload_operands("ciphertext", always_base64=True)
@aad_options
@out_option
@click.pass_obj
def command(
    invocation: Invocation, key_id: str, source: Source, aad: bytes, out: str | None
) -> None:
    """
    Open a sealed blob. Prints the raw plaintext; --out creates a private file.

    CIPHERTEXT is base64; a file holds the raw blob unless --base64 is given.
    """
    found = invocation.execute(Open(key_id=key_id, ciphertext=source.read(), aad=aad))
    if out is None and not invocation.output.json:
        out = "-"
    deliver(invocation.output, found, found.plaintext, out, private=True)
