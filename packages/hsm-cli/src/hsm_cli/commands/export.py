# SPDX-License-Identifier: MIT
"""The command ``export``."""

from __future__ import annotations

import click

from hsm_cli.actions.options import HSMCommand, version_option
from hsm_cli.actions.transfer import transfer_options
from hsm_cli.invocation import Invocation
from hsm_cli.io.operands import key_operand
from hsm_cli.io.results import deliver
from hsm_core.algorithms import HashAlgorithm, KeyFormat, WrapMechanism
from hsm_core.operations import ExportKey


@click.command("export", cls=HSMCommand)
@key_operand
@transfer_options
@version_option
@click.option(
    "--out",
    "--output",
    "out",
    metavar="FILE",
    help="Write the wrapped key to a file; - is standard output.",
)
@click.pass_obj
def command(
    invocation: Invocation,
    key_id: str,
    wrapping_key_id: str,
    mechanism: WrapMechanism | None,
    form: KeyFormat | None,
    hash_name: HashAlgorithm | None,
    mgf_hash: HashAlgorithm | None,
    version: int | None,
    out: str | None,
) -> None:
    """
    Export a key, wrapped with another HSM key. Prints it as base64.

    The key must be exportable, and the wrapping key must be at least as strong.
    """
    found = invocation.execute(
        ExportKey(
            key_id=key_id,
            wrapping_key_id=wrapping_key_id,
            version=version,
            mechanism=mechanism,
            format=form,
            hash=hash_name,
            mgf_hash=mgf_hash,
        )
    )
    deliver(invocation.output, found, found.wrapped, out, private=False)
