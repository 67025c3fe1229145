# SPDX-License-Identifier: MIT
"""The command ``jwk``."""

from __future__ import annotations

import json

import click

from hsm_cli.actions.options import HSMCommand, version_option
from hsm_cli.invocation import Invocation
from hsm_cli.io.files import write_file
from hsm_cli.io.output import encode_record
from hsm_core.errors import UnsupportedOperationError
from hsm_core.operations import GetPublicKey


@click.command("jwk", cls=HSMCommand)
@click.argument("key_ids", metavar="KEY...", nargs=-1, required=True)
@version_option
@click.option(
    "--set", "as_set", is_flag=True, help="Print a JWK Set even for a single key."
)
@click.option("--out", metavar="FILE", help="Write the JWK to a file.")
@click.pass_obj
def command(
    invocation: Invocation,
    key_ids: tuple[str, ...],
    version: int | None,
    as_set: bool,
    out: str | None,
) -> None:
    """
    Print public keys as JWK (RFC 7517); several keys are printed as a JWK Set.

    SLH-DSA and composite keys have no JWK format.
    """
    if version is not None and len(key_ids) > 1:
        raise click.UsageError("--version requires a single KEY.")
    found = [_jwk(invocation, key_id, version) for key_id in key_ids]
    shown = {"keys": found} if as_set or len(found) > 1 else found[0]
    data = f"{json.dumps(shown, indent=2)}\n".encode()
    if out is not None and out != "-":
        write_file(out, data, private=False)
    else:
        invocation.output.data(data)


def _jwk(invocation: Invocation, key_id: str, version: int | None) -> object:
    key = invocation.execute(GetPublicKey(key_id=key_id, version=version))
    if key.jwk is None:
        raise UnsupportedOperationError(
            f"{key.algorithm} keys have no JWK format.", field="key_id"
        )
    return json.loads(encode_record(key.jwk))
