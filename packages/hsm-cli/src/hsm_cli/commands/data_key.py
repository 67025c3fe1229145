# SPDX-License-Identifier: MIT
"""The command ``data-key``."""

from __future__ import annotations

import click

from hsm_cli.actions.options import HSMCommand
from hsm_cli.invocation import Invocation
from hsm_cli.io.operands import aad_options, key_operand
from hsm_cli.io.results import check_destinations, deliver, deliver_pair, pair_options
from hsm_core.operations import GenerateDataKey


@click.command("data-key", cls=HSMCommand)
@key_operand
@click.option(
    "--length",
    type=click.IntRange(16, 64),
    default=32,
    show_default=True,
    metavar="N",
    help="Length of the data key in bytes, 16 to 64.",
)
@click.option(
    "--wrapped-only",
    is_flag=True,
    help="Return only the encrypted data key, not the plaintext.",
)
@aad_options
@pair_options("data key")
@click.pass_obj
def command(
    invocation: Invocation,
    key_id: str,
    length: int,
    wrapped_only: bool,
    aad: bytes,
    out: str | None,
    ciphertext_out: str | None,
) -> None:
    """
    Generate a data key for use outside the HSM, with an encrypted copy of it.

    Store the encrypted copy with the data; decrypt (or open, for a KEM key) returns the
    data key. The copy is printed as base64 unless --ciphertext-out is given.
    """
    if wrapped_only and out is not None:
        raise click.UsageError(
            "--out can't be used with --wrapped-only; use --ciphertext-out."
        )
    if not wrapped_only:
        check_destinations(invocation.output, out, ciphertext_out)
    found = invocation.execute(
        GenerateDataKey(
            key_id=key_id, length=length, aad=aad, wrapped_only=wrapped_only
        )
    )
    if wrapped_only:
        deliver(
            invocation.output, found, found.ciphertext, ciphertext_out, private=False
        )
        return
    deliver_pair(
        invocation.output, found, found.ciphertext, found.plaintext, out, ciphertext_out
    )
