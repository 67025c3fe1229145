# SPDX-License-Identifier: MIT
"""The command ``random``."""

from __future__ import annotations

import click

from hsm_cli.actions.options import HSMCommand, out_option
from hsm_cli.invocation import Invocation
from hsm_cli.io.files import encode_base64
from hsm_cli.io.results import deliver
from hsm_core.operations import GenerateRandom


@click.command("random", cls=HSMCommand)
@click.argument("length", type=click.IntRange(1, 1_048_576))
@click.option(
    "--format",
    "form",
    type=click.Choice(["base64", "hex"]),
    default="base64",
    show_default=True,
    help="Output format.",
)
@out_option
@click.pass_obj
def command(invocation: Invocation, length: int, form: str, out: str | None) -> None:
    """Generate LENGTH random bytes, 1 to 1048576."""
    found = invocation.execute(GenerateRandom(length=length))
    data = found.random
    text = encode_base64(data) if form == "base64" else data.hex()
    deliver(invocation.output, found, data, out, private=True, text=text)
