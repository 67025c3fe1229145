# SPDX-License-Identifier: MIT
"""Commands that make and verify signatures and MACs."""

from __future__ import annotations

from functools import partial

import click

from hsm_cli.actions.batches import most_signatures, run_batch
from hsm_cli.actions.signing import (
    SignatureInput,
    SignatureOptions,
    signature_options,
    signing_input,
    verification_inputs,
)
from hsm_cli.invocation import Invocation
from hsm_cli.io.files import Source
from hsm_cli.io.results import deliver
from hsm_cli.operands import payload_operands, proof_options
from hsm_cli.parameters import HSMCommand, file_option, out_option, version_option
from hsm_core.errors import (
    GenerationConflictError,
    KeyStateError,
    SignatureMismatchError,
)
from hsm_core.operations.base import Verified
from hsm_core.operations.signing import (
    ComputeMac,
    ComputeMacBatch,
    MacInput,
    Sign,
    SignBatch,
    SignItem,
    Verify,
    VerifyBatch,
    VerifyItem,
    VerifyMac,
    VerifyMacBatch,
    VerifyMacItem,
)

_results_option = file_option(
    "Write the results of --batch to a file; - is standard output."
)


@signature_options
@click.pass_obj
def _sign_batch(
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
    request = partial(SignBatch, key_id=key_id, **options.fields())
    most_items = most_signatures(invocation, key_id)
    run_batch(invocation, source, SignItem, request, out, most_items=most_items)


@click.command("sign", cls=HSMCommand)
@payload_operands("payload", batch=_sign_batch)
@signature_options
@out_option
@click.pass_obj
def sign(
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
    found = invocation.execute(Sign(key_id=key_id, **signed.fields(options)))
    if signed.version is not None and signed.version != found.version:
        raise GenerationConflictError(
            f"The key was rotated to version {found.version} while the payload was "
            f"hashed for version {signed.version}. Run the command again."
        )
    deliver(invocation.output, found, found.signature, out, private=False)


@signature_options
@click.pass_obj
def _verify_batch(
    invocation: Invocation,
    *,
    key_id: str,
    source: Source,
    options: SignatureOptions,
    version: int | None,
    out: str | None,
    proof_operand: str | None,
    proof_path: str | None,
    proof_text: str | None,
) -> None:
    if options.prehashed or (proof_operand, proof_path, proof_text) != (None,) * 3:
        raise click.UsageError(
            "--prehash, --signature and --signature-base64 can't be used with --batch; "
            "put a signature, and a message or a digest, in each item."
        )
    fields = options.fields()
    request = partial(VerifyBatch, key_id=key_id, version=version, **fields)
    run_batch(invocation, source, VerifyItem, request, out)


@click.command("verify", cls=HSMCommand)
@payload_operands("payload", batch=_verify_batch)
@proof_options("signature")
@signature_options
@version_option("Verify with this key version only.")
@_results_option
@click.pass_obj
def verify(
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

    The client hashes payloads over 1 MiB, as in sign.
    """
    if out is not None:
        raise click.UsageError("--out requires --batch.")
    signature = proof.read()
    tries = verification_inputs(invocation, key_id, source, options, version)
    found = _verify_any(invocation, key_id, signature, tries, options, version)
    invocation.output.record(found, _verdict("signature", key_id, found))


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
            version=signed.version if version is None else version,
            **signed.fields(options),
        )
        try:
            return invocation.execute(operation)
        except (SignatureMismatchError, KeyStateError):
            if signed is tries[-1]:
                raise
    raise SignatureMismatchError


@click.pass_obj
def _mac_batch(
    invocation: Invocation, *, key_id: str, source: Source, out: str | None
) -> None:
    request = partial(ComputeMacBatch, key_id=key_id)
    run_batch(invocation, source, MacInput, request, out)


@click.command("mac", cls=HSMCommand)
@payload_operands("payload", batch=_mac_batch)
@out_option
@click.pass_obj
def mac(invocation: Invocation, key_id: str, source: Source, out: str | None) -> None:
    """Compute a MAC with the current key version. Prints it as base64."""
    found = invocation.execute(ComputeMac(key_id=key_id, message=source.read()))
    deliver(invocation.output, found, found.mac, out, private=False)


@click.pass_obj
def _verify_mac_batch(
    invocation: Invocation,
    *,
    key_id: str,
    source: Source,
    version: int | None,
    out: str | None,
    proof_operand: str | None,
    proof_path: str | None,
    proof_text: str | None,
) -> None:
    if (proof_operand, proof_path, proof_text) != (None,) * 3:
        raise click.UsageError(
            "--mac and --mac-base64 can't be used with --batch; put a MAC in each item."
        )
    request = partial(VerifyMacBatch, key_id=key_id, version=version)
    run_batch(invocation, source, VerifyMacItem, request, out)


@click.command("verify-mac", cls=HSMCommand)
@payload_operands("payload", batch=_verify_mac_batch)
@proof_options("mac")
@version_option("Verify with this key version only.")
@_results_option
@click.pass_obj
def verify_mac(
    invocation: Invocation,
    key_id: str,
    source: Source,
    proof: Source,
    version: int | None,
    out: str | None,
) -> None:
    """Verify a MAC, by default with every key version. Exits with 6 on a mismatch."""
    if out is not None:
        raise click.UsageError("--out requires --batch.")
    found = invocation.execute(
        VerifyMac(
            key_id=key_id, message=source.read(), mac=proof.read(), version=version
        )
    )
    invocation.output.record(found, _verdict("MAC", key_id, found))


def _verdict(what: str, key: str, found: Verified) -> str:
    """Return the result of a verification; *key* is the name that was given."""
    return f"Valid {what}: {key}, version {found.version}, {found.algorithm}"
