# SPDX-License-Identifier: MIT
"""The command ``decrypt``."""

from __future__ import annotations

import click

from hsm_cli.encryption import encryption_options, read_aad
from hsm_cli.files import Source
from hsm_cli.invocation import Invocation
from hsm_cli.options import HSMCommand, out_option, payload_operands, version_option
from hsm_cli.results import deliver
from hsm_core.algorithms import CiphertextEncoding, HashAlgorithm
from hsm_core.operations import Decrypt

__all__ = ["command"]


@click.command("decrypt", cls=HSMCommand)
@payload_operands("ciphertext", always_base64=True)
@encryption_options
@version_option
@out_option
@click.pass_obj
def command(
    invocation: Invocation,
    key_id: str,
    source: Source,
    aad: str | None,
    aad_file: str | None,
    hash_name: HashAlgorithm | None,
    mgf_hash: HashAlgorithm | None,
    encoding: CiphertextEncoding,
    version: int | None,
    out: str | None,
) -> None:
    """
    Decrypt data; prints it as it is. A file that gets it is its owner's alone.

    An argument is base64; a file holds the bare ciphertext, unless --base64 is given.
    """
    found = invocation.execute(
        Decrypt(
            key_id=key_id,
            ciphertext=source.read(),
            aad=read_aad(aad, aad_file),
            version=version,
            hash=hash_name,
            mgf_hash=mgf_hash,
            encoding=encoding,
        )
    )
    if out is None and not invocation.output.json:
        out = "-"
    deliver(invocation.output, found, found.plaintext, out, private=True)
