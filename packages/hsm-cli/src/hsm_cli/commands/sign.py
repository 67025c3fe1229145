# SPDX-License-Identifier: MIT
"""The command ``sign``."""

from __future__ import annotations

import click

from hsm_cli.actions.batches import most_signatures, run_batch
from hsm_cli.actions.options import HSMCommand, out_option
from hsm_cli.actions.signing import (
    SignatureOptions,
    signature_options,
    signing_input,
)
from hsm_cli.invocation import Invocation
from hsm_cli.io.files import Source
from hsm_cli.io.operands import payload_operands
from hsm_cli.io.results import deliver
from hsm_core.errors import GenerationConflictError
from hsm_core.operations import Sign, SignBatch, SignItem


@signature_options
@click.pass_obj
def _batch(
    invocation: Invocation,
    *,
    key_id: str,
    source: Source,
    options: SignatureOptions,
    out: str | None,
) -> None:
    if options.prehashed:
        raise click.UsageError(
            "--prehash can't be used with --batch; put a message or a digest in each "
            "item."
        )

    def request(items: tuple[SignItem, ...]) -> SignBatch:
        return SignBatch(
            key_id=key_id,
            items=items,
            scheme=options.scheme,
            hash=options.hash,
            encoding=options.encoding,
            context=options.context,
        )

    most_items = most_signatures(invocation, key_id)
    run_batch(invocation, source, SignItem, request, out, most_items=most_items)


@click.command("sign", cls=HSMCommand)
@payload_operands("payload", batch=_batch)
@signature_options
@out_option
@click.pass_obj
def command(
    invocation: Invocation,
    key_id: str,
    source: Source,
    options: SignatureOptions,
    out: str | None,
) -> None:
    """
    Sign data with the current key version. Prints the signature as base64.

    The client hashes payloads over 1 MiB and sends the digest (ML-DSA: mu), so files
    can have any size. Ed25519, Ed448 and SLH-DSA sign at most 64 MiB.
    """
    signed = signing_input(invocation, key_id, source, options)
    found = invocation.execute(
        Sign(
            key_id=key_id,
            message=signed.message,
            digest=signed.digest,
            mu=signed.mu,
            scheme=options.scheme,
            hash=signed.hash,
            encoding=options.encoding,
            context=signed.context,
        )
    )
    if signed.version is not None and signed.version != found.version:
        raise GenerationConflictError(
            f"The key was rotated to version {found.version} while the payload was "
            f"hashed for version {signed.version}. Run the command again."
        )
    deliver(invocation.output, found, found.signature, out, private=False)
