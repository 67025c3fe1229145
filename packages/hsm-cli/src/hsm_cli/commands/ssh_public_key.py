# SPDX-License-Identifier: MIT
"""The command ``ssh-public-key``."""

from __future__ import annotations

import click

from hsm_cli.actions.options import HSMCommand, version_option
from hsm_cli.invocation import Invocation
from hsm_cli.io.files import write_file
from hsm_cli.io.operands import key_operand
from hsm_core.errors import InvalidInputError, UnsupportedOperationError
from hsm_core.operations import GetPublicKey, PublicKey


@click.command("ssh-public-key", cls=HSMCommand)
@key_operand
@version_option
@click.option("--comment", metavar="TEXT", help="Comment. Default: the key ID.")
@click.option("--out", metavar="FILE", help="Write the public key to a file.")
@click.pass_obj
def command(
    invocation: Invocation,
    key_id: str,
    version: int | None,
    comment: str | None,
    out: str | None,
) -> None:
    """
    Print a public key in OpenSSH format, for authorized_keys or known_hosts.

    Supported keys: RSA, ECDSA and Ed25519.
    """
    key = invocation.execute(GetPublicKey(key_id=key_id, version=version))
    text = key.key_id if comment is None else comment
    if not text.isprintable():
        raise InvalidInputError("comment must be one line of text.", field="comment")
    data = f"{_line(key)} {text}".rstrip().encode() + b"\n"
    if out is not None and out != "-":
        write_file(out, data, private=False)
    else:
        invocation.output.data(data)


def _line(key: PublicKey) -> str:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        PublicFormat,
        load_der_public_key,
    )

    try:
        public = load_der_public_key(key.der)
        return public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    except (UnsupportedAlgorithm, ValueError, TypeError):
        raise UnsupportedOperationError(
            f"OpenSSH does not support {key.algorithm} keys.", field="key_id"
        ) from None
