# SPDX-License-Identifier: MIT
"""The command ``decapsulate``."""

from __future__ import annotations

import click

from hsm_cli.actions.options import HSMCommand, out_option, version_option
from hsm_cli.invocation import Invocation
from hsm_cli.io.files import Source
from hsm_cli.io.operands import payload_operands
from hsm_cli.io.results import check_destination, deliver_key
from hsm_core.operations import Decapsulate


@click.command("decapsulate", cls=HSMCommand)
@payload_operands("ciphertext", always_base64=True)
@version_option
@out_option
@click.pass_obj
def command(
    invocation: Invocation,
    key_id: str,
    source: Source,
    version: int | None,
    out: str | None,
) -> None:
    """
    Recover the shared secret of an encapsulation. --out creates a private file.

    An encapsulation that was altered, or made for another key, yields a different
    secret and no error (implicit rejection, FIPS 203).
    """
    check_destination(invocation.output, out)
    found = invocation.execute(
        Decapsulate(key_id=key_id, ciphertext=source.read(), version=version)
    )
    deliver_key(invocation.output, found, found.shared_secret, out)
