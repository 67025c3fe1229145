# SPDX-License-Identifier: MIT
"""Commands that encrypt and decrypt data."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Final, TypedDict, Unpack

import click

from hsm_cli.actions.batches import run_batch
from hsm_cli.invocation import Invocation
from hsm_cli.io.files import Source
from hsm_cli.io.results import check_destinations, deliver, deliver_pair, pair_options
from hsm_cli.operands import aad_options, payload_operands
from hsm_cli.options import choice, with_options
from hsm_cli.parameters import (
    OAEP_OPTIONS,
    HSMCommand,
    key_operand,
    out_option,
    version_option,
)
from hsm_core.algorithms import CiphertextEncoding, HashAlgorithm
from hsm_core.operations.encryption import (
    Decrypt,
    DecryptBatch,
    DecryptItem,
    Encrypt,
    EncryptBatch,
    EncryptItem,
    GenerateDataKey,
    Rewrap,
)


class EncryptionOptions(TypedDict):
    """Parameters of encryption, under the field names of the operations."""

    aad: bytes
    hash: HashAlgorithm | None
    mgf_hash: HashAlgorithm | None
    encoding: CiphertextEncoding


_DEFAULTS: Final = EncryptionOptions(
    aad=b"", hash=None, mgf_hash=None, encoding=CiphertextEncoding.ENVELOPE
)


def encryption_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the fields of `EncryptionOptions` to a command."""
    return with_options(*OAEP_OPTIONS, _ENCODING_OPTION)(aad_options(function))


_ENCODING_OPTION: Final = click.option(
    "--encoding",
    type=choice(CiphertextEncoding),
    default=CiphertextEncoding.ENVELOPE,
    metavar="NAME",
    help="Ciphertext format: envelope (default), or raw for other software (RSA only).",
)


def refuse_in_batch(options: EncryptionOptions, *others: object) -> None:
    """
    Refuse options that a batch does not support.

    Raises:
        click.UsageError: One of them was given.
    """
    if options != _DEFAULTS or any(other is not None for other in others):
        raise click.UsageError(
            "Other options can't be used with --batch; put aad in each item."
        )


@encryption_options
@click.pass_obj
def _encrypt_batch(
    invocation: Invocation,
    *,
    key_id: str,
    source: Source,
    out: str | None,
    **options: Unpack[EncryptionOptions],
) -> None:
    refuse_in_batch(options)
    request = partial(EncryptBatch, key_id=key_id)
    run_batch(invocation, source, EncryptItem, request, out)


@click.command("encrypt", cls=HSMCommand)
@payload_operands("plaintext", batch=_encrypt_batch)
@encryption_options
@out_option
@click.pass_obj
def encrypt(
    invocation: Invocation,
    key_id: str,
    source: Source,
    out: str | None,
    **options: Unpack[EncryptionOptions],
) -> None:
    """
    Encrypt data with the current key version. Prints the ciphertext as base64.

    The ciphertext identifies its key and version for decrypt.
    """
    operation = Encrypt(key_id=key_id, plaintext=source.read(), **options)
    found = invocation.execute(operation)
    deliver(invocation.output, found, found.ciphertext, out, private=False)


@encryption_options
@click.pass_obj
def _decrypt_batch(
    invocation: Invocation,
    *,
    key_id: str,
    source: Source,
    version: int | None,
    out: str | None,
    **options: Unpack[EncryptionOptions],
) -> None:
    refuse_in_batch(options, version)
    request = partial(DecryptBatch, key_id=key_id)
    run_batch(invocation, source, DecryptItem, request, out, private=True)


@click.command("decrypt", cls=HSMCommand)
@payload_operands("ciphertext", always_base64=True, batch=_decrypt_batch)
@encryption_options
@version_option("Key version of a raw ciphertext. Default: the current one.")
@out_option
@click.pass_obj
def decrypt(
    invocation: Invocation,
    key_id: str,
    source: Source,
    version: int | None,
    out: str | None,
    **options: Unpack[EncryptionOptions],
) -> None:
    """
    Decrypt data. Prints the raw plaintext; --out creates a private file.

    FILE holds the raw ciphertext, or base64 with --base64. Base64 text is accepted in
    place of FILE.
    """
    ciphertext = source.read()
    found = invocation.execute(
        Decrypt(key_id=key_id, ciphertext=ciphertext, version=version, **options)
    )
    if out is None and not invocation.output.is_record:
        out = "-"
    deliver(invocation.output, found, found.plaintext, out, private=True)


@click.command("rewrap", cls=HSMCommand)
@payload_operands("ciphertext", always_base64=True)
@aad_options
@out_option
@click.pass_obj
def rewrap(
    invocation: Invocation, key_id: str, source: Source, aad: bytes, out: str | None
) -> None:
    """
    Re-encrypt a ciphertext with the current key version. Prints it as base64.

    Accepts output of encrypt, seal and data-key. The plaintext never leaves the HSM.
    """
    found = invocation.execute(Rewrap(key_id=key_id, ciphertext=source.read(), aad=aad))
    deliver(invocation.output, found, found.ciphertext, out, private=False)


@click.command("data-key", cls=HSMCommand)
@key_operand
@click.option(
    "--length",
    type=click.IntRange(16, 64),
    default=32,
    show_default=True,
    metavar="N",
    help="Length of the data key in bytes, 16 to 64.",
)
@click.option(
    "--wrapped-only",
    is_flag=True,
    help="Return only the encrypted data key, not the plaintext.",
)
@aad_options
@pair_options("data key")
@click.pass_obj
def data_key(
    invocation: Invocation,
    key_id: str,
    length: int,
    wrapped_only: bool,
    aad: bytes,
    out: str | None,
    ciphertext_out: str | None,
) -> None:
    """
    Generate a data key for use outside the HSM, with an encrypted copy of it.

    Store the encrypted copy with the data; decrypt (or open, for a KEM key) returns the
    data key. The copy is printed as base64 unless --ciphertext-out is given.
    """
    if wrapped_only and out is not None:
        raise click.UsageError(
            "--out can't be used with --wrapped-only; use --ciphertext-out."
        )
    if not wrapped_only:
        check_destinations(invocation.output, out, ciphertext_out)
    found = invocation.execute(
        GenerateDataKey(
            key_id=key_id, length=length, aad=aad, wrapped_only=wrapped_only
        )
    )
    if wrapped_only:
        deliver(
            invocation.output, found, found.ciphertext, ciphertext_out, private=False
        )
        return
    deliver_pair(
        invocation.output, found, found.ciphertext, found.plaintext, out, ciphertext_out
    )
