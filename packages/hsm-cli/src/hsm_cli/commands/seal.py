# SPDX-License-Identifier: MIT
"""The command ``seal``."""

from __future__ import annotations

import click

from hsm_cli.actions.options import HSMCommand, out_option, version_option
from hsm_cli.invocation import Invocation
from hsm_cli.io.files import Source
from hsm_cli.io.operands import aad_options, payload_operands
from hsm_cli.io.results import deliver
from hsm_core.operations import Ciphertext, Seal


@click.command("seal", cls=HSMCommand)
@payload_operands("plaintext")
@aad_options
@click.option(
    "--public-key",
    metavar="FILE",
    help="Seal offline with this public key (PEM or DER). KEY must be the key's UUID, "
    "and --version the version of the public key.",
)
@version_option
@out_option
@click.pass_obj
def command(
    invocation: Invocation,
    key_id: str,
    source: Source,
    aad: bytes,
    public_key: str | None,
    version: int | None,
    out: str | None,
) -> None:
    """
    Encrypt a message of up to 64 MiB to a KEM key. Prints the sealed blob as base64.

    A composite key such as "P-256 + ML-KEM-768" gives hybrid encryption. Decrypt with
    open.
    """
    if (public_key is None) != (version is None):
        raise click.UsageError("--public-key and --version must be given together.")
    if public_key is not None and version is not None:
        found = _seal_here(public_key, key_id, version, source.read(), aad)
    else:
        found = invocation.execute(
            Seal(key_id=key_id, plaintext=source.read(), aad=aad)
        )
    deliver(invocation.output, found, found.ciphertext, out, private=False)


def _seal_here(
    path: str, key_id: str, version: int, plaintext: bytes, aad: bytes
) -> Ciphertext:
    # It loads all of the cryptography.
    from hsm_cli.actions.sealing import read_public_key, seal_offline

    algorithm, der = read_public_key(Source(what="public key", path=path))
    return seal_offline(algorithm, der, key_id, version, plaintext, aad)
