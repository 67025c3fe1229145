# SPDX-License-Identifier: MIT
"""The command ``decrypt``."""

from __future__ import annotations

import click

from hsm_cli.actions.batches import run_batch
from hsm_cli.actions.encryption import (
    EncryptionOptions,
    encryption_options,
    refuse_in_batch,
)
from hsm_cli.actions.options import HSMCommand, out_option, version_option
from hsm_cli.invocation import Invocation
from hsm_cli.io.files import Source
from hsm_cli.io.operands import payload_operands
from hsm_cli.io.results import deliver
from hsm_core.operations import Decrypt, DecryptBatch, DecryptItem


@encryption_options
@click.pass_obj
def _batch(
    invocation: Invocation,
    *,
    key_id: str,
    source: Source,
    options: EncryptionOptions,
    version: int | None,
    out: str | None,
) -> None:
    refuse_in_batch(options, version)

    def request(items: tuple[DecryptItem, ...]) -> DecryptBatch:
        return DecryptBatch(key_id=key_id, items=items)

    run_batch(invocation, source, DecryptItem, request, out, private=True)


@click.command("decrypt", cls=HSMCommand)
@payload_operands("ciphertext", always_base64=True, batch=_batch)
@encryption_options
@version_option
@out_option
@click.pass_obj
def command(
    invocation: Invocation,
    key_id: str,
    source: Source,
    options: EncryptionOptions,
    version: int | None,
    out: str | None,
) -> None:
    """
    Decrypt data. Prints the raw plaintext; --out creates a private file.

    CIPHERTEXT is base64; a file holds the raw ciphertext unless --base64 is given.
    """
    found = invocation.execute(
        Decrypt(
            key_id=key_id,
            ciphertext=source.read(),
            aad=options.aad,
            version=version,
            hash=options.hash,
            mgf_hash=options.mgf_hash,
            encoding=options.encoding,
        )
    )
    if out is None and not invocation.output.json:
        out = "-"
    deliver(invocation.output, found, found.plaintext, out, private=True)
