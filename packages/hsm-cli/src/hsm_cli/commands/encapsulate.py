# SPDX-License-Identifier: MIT
"""The command ``encapsulate``."""

from __future__ import annotations

import click

from hsm_cli.actions.options import HSMCommand
from hsm_cli.invocation import Invocation
from hsm_cli.io.operands import key_operand
from hsm_cli.io.results import check_destinations, deliver_pair, pair_options
from hsm_core.operations import Encapsulate


@click.command("encapsulate", cls=HSMCommand)
@key_operand
@pair_options("shared secret")
@click.pass_obj
def command(
    invocation: Invocation, key_id: str, out: str | None, ciphertext_out: str | None
) -> None:
    """
    Generate a shared secret and its encapsulation (ciphertext) for a KEM key.

    decapsulate recovers the secret from the ciphertext, which is printed as base64
    unless --ciphertext-out is given.
    """
    check_destinations(invocation.output, out, ciphertext_out)
    found = invocation.execute(Encapsulate(key_id=key_id))
    deliver_pair(
        invocation.output,
        found,
        found.ciphertext,
        found.shared_secret,
        out,
        ciphertext_out,
    )
