# SPDX-License-Identifier: MIT
"""The command ``rewrap``."""

from __future__ import annotations

import click

from hsm_cli.actions.options import HSMCommand, out_option
from hsm_cli.invocation import Invocation
from hsm_cli.io.files import Source
from hsm_cli.io.operands import aad_options, payload_operands
from hsm_cli.io.results import deliver
from hsm_core.operations import Rewrap


@click.command("rewrap", cls=HSMCommand)
@payload_operands("ciphertext", always_base64=True)
@aad_options
@out_option
@click.pass_obj
def command(
    invocation: Invocation, key_id: str, source: Source, aad: bytes, out: str | None
) -> None:
    """
    Re-encrypt a ciphertext with the current key version. Prints it as base64.

    Accepts output of encrypt, seal and data-key. The plaintext never leaves the HSM.
    """
    found = invocation.execute(Rewrap(key_id=key_id, ciphertext=source.read(), aad=aad))
    deliver(invocation.output, found, found.ciphertext, out, private=False)
