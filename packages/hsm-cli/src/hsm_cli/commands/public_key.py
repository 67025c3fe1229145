# SPDX-License-Identifier: MIT
"""The command ``public-key``."""

from __future__ import annotations

import click

from hsm_cli.actions.options import HSMCommand, version_option
from hsm_cli.invocation import Invocation
from hsm_cli.io.files import write_file
from hsm_cli.io.operands import key_operand
from hsm_cli.io.output import encode_record
from hsm_core.operations import GetPublicKey, PublicKey


@click.command("public-key", cls=HSMCommand)
@key_operand
@version_option
@click.option(
    "--format",
    "form",
    type=click.Choice(["pem", "der", "jwk"]),
    default="pem",
    show_default=True,
    help="Output format: SubjectPublicKeyInfo (PEM or DER), or JWK.",
)
@click.option("--out", metavar="FILE", help="Write the public key to a file.")
@click.pass_obj
def command(
    invocation: Invocation, key_id: str, version: int | None, form: str, out: str | None
) -> None:
    """Print the public key of a key version. Default: the current version."""
    key = invocation.execute(GetPublicKey(key_id=key_id, version=version))
    data = _encoded(key, form)
    if out is not None and out != "-":
        write_file(out, data, private=False)
    elif invocation.output.json:
        invocation.output.record(key, "")
    else:
        invocation.output.data(data)


def _encoded(key: PublicKey, form: str) -> bytes:
    match form:
        case "pem":
            return key.pem.encode()
        case "der":
            return key.der
        case _:
            return f"{encode_record(key.jwk)}\n".encode()
