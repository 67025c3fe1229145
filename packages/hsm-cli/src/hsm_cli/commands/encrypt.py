# SPDX-License-Identifier: MIT
"""The command ``encrypt``."""

from __future__ import annotations

import click

from hsm_cli.actions.batches import run_batch
from hsm_cli.actions.encryption import (
    EncryptionOptions,
    encryption_options,
    refuse_in_batch,
)
from hsm_cli.actions.options import HSMCommand, out_option
from hsm_cli.invocation import Invocation
from hsm_cli.io.files import Source
from hsm_cli.io.operands import payload_operands
from hsm_cli.io.results import deliver
from hsm_core.operations import Encrypt, EncryptBatch, EncryptItem


@encryption_options
@click.pass_obj
def _batch(
    invocation: Invocation,
    *,
    key_id: str,
    source: Source,
    options: EncryptionOptions,
    out: str | None,
) -> None:
    refuse_in_batch(options)

    def request(items: tuple[EncryptItem, ...]) -> EncryptBatch:
        return EncryptBatch(key_id=key_id, items=items)

    run_batch(invocation, source, EncryptItem, request, out)


@click.command("encrypt", cls=HSMCommand)
@payload_operands("plaintext", batch=_batch)
@encryption_options
@out_option
@click.pass_obj
def command(
    invocation: Invocation,
    key_id: str,
    source: Source,
    options: EncryptionOptions,
    out: str | None,
) -> None:
    """
    Encrypt data with the current key version. Prints the ciphertext as base64.

    The ciphertext identifies its key and version for decrypt.
    """
    found = invocation.execute(
        Encrypt(
            key_id=key_id,
            plaintext=source.read(),
            aad=options.aad,
            hash=options.hash,
            mgf_hash=options.mgf_hash,
            encoding=options.encoding,
        )
    )
    deliver(invocation.output, found, found.ciphertext, out, private=False)
