# SPDX-License-Identifier: MIT
"""The command ``encrypt``."""

from __future__ import annotations

import click

from hsm_cli.encryption import encryption_options, read_aad
from hsm_cli.files import Source
from hsm_cli.invocation import Invocation
from hsm_cli.options import HSMCommand, out_option, payload_operands
from hsm_cli.results import deliver
from hsm_core.algorithms import CiphertextEncoding, HashAlgorithm
from hsm_core.operations import Encrypt

__all__ = ["command"]


@click.command("encrypt", cls=HSMCommand)
@payload_operands("plaintext")
@encryption_options
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
    out: str | None,
) -> None:
    """
    Encrypt data with the current version. Prints the ciphertext as base64.

    The ciphertext names its key and version, so that decrypt finds them.
    """
    found = invocation.execute(
        Encrypt(
            key_id=key_id,
            plaintext=source.read(),
            aad=read_aad(aad, aad_file),
            hash=hash_name,
            mgf_hash=mgf_hash,
            encoding=encoding,
        )
    )
    deliver(invocation.output, found, found.ciphertext, out, private=False)
