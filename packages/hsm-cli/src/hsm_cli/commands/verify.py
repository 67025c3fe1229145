# SPDX-License-Identifier: MIT
"""The command ``verify``."""

from __future__ import annotations

import click

from hsm_cli.actions.batches import run_batch
from hsm_cli.actions.options import HSMCommand, out_option, version_option
from hsm_cli.actions.signing import (
    SignatureInput,
    SignatureOptions,
    signature_options,
    verification_inputs,
)
from hsm_cli.invocation import Invocation
from hsm_cli.io.files import Source
from hsm_cli.io.operands import payload_operands, proof_options
from hsm_core.errors import KeyStateError, SignatureMismatchError
from hsm_core.operations import Verified, Verify, VerifyBatch, VerifyItem


@signature_options
@click.pass_obj
def _batch(
    invocation: Invocation,
    *,
    key_id: str,
    source: Source,
    options: SignatureOptions,
    version: int | None,
    out: str | None,
    proof_path: str | None,
    proof_text: str | None,
) -> None:
    if options.prehashed or proof_path is not None or proof_text is not None:
        raise click.UsageError(
            "--prehash, --signature and --signature-base64 can't be used with --batch; "
            "put a signature, and a message or a digest, in each item."
        )

    def request(items: tuple[VerifyItem, ...]) -> VerifyBatch:
        return VerifyBatch(
            key_id=key_id,
            items=items,
            version=version,
            scheme=options.scheme,
            hash=options.hash,
            encoding=options.encoding,
            context=options.context,
        )

    run_batch(invocation, source, VerifyItem, request, out)


@click.command("verify", cls=HSMCommand)
@payload_operands("payload", batch=_batch)
@proof_options("signature")
@signature_options
@version_option
@out_option
@click.pass_obj
def command(
    invocation: Invocation,
    key_id: str,
    source: Source,
    proof: Source,
    options: SignatureOptions,
    version: int | None,
    out: str | None,
) -> None:
    """
    Verify a signature, by default with every key version. Exits with 6 on a mismatch.

    The client hashes payloads over 1 MiB, as in sign. --out writes the results of a
    batch.
    """
    if out is not None:
        raise click.UsageError("--out requires --batch.")
    signature = proof.read()
    tries = verification_inputs(invocation, key_id, source, options, version)
    found = _verify_any(invocation, key_id, signature, tries, options, version)
    invocation.output.record(found, f"Valid signature (version {found.version}).")


def _verify_any(
    invocation: Invocation,
    key_id: str,
    signature: bytes,
    tries: list[SignatureInput],
    options: SignatureOptions,
    version: int | None,
) -> Verified:
    for signed in tries:
        operation = Verify(
            key_id=key_id,
            signature=signature,
            message=signed.message,
            digest=signed.digest,
            mu=signed.mu,
            version=signed.version if version is None else version,
            scheme=options.scheme,
            hash=signed.hash,
            encoding=options.encoding,
            context=signed.context,
        )
        try:
            return invocation.execute(operation)
        except (SignatureMismatchError, KeyStateError):
            if signed is tries[-1]:
                raise
    raise SignatureMismatchError
