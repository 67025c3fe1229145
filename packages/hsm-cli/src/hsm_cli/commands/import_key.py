# SPDX-License-Identifier: MIT
"""The command ``import``."""

from __future__ import annotations

import click

from hsm_cli.actions.key_changes import change_key
from hsm_cli.actions.new_keys import NewKey, new_key_options
from hsm_cli.actions.options import HSMCommand
from hsm_cli.actions.transfer import Wrapped, transfer_options, wrap_here
from hsm_cli.invocation import Invocation
from hsm_cli.io.files import Source
from hsm_core.algorithms import (
    HashAlgorithm,
    KeyFormat,
    WrapMechanism,
    parse_algorithm,
)
from hsm_core.operations import ImportKey


@click.command("import", cls=HSMCommand)
@click.argument("path", metavar="FILE")
@click.option(
    "--algorithm", required=True, metavar="NAME", help="Algorithm of the key."
)
@transfer_options
@click.option(
    "--wrapped",
    is_flag=True,
    help="FILE is already wrapped, as written by export.",
)
@click.option(
    "--wrapping-version",
    type=click.IntRange(min=1),
    metavar="N",
    help="Version of the wrapping key; requires --wrapped. Default: the current one.",
)
@click.option(
    "--passphrase-file",
    metavar="FILE",
    help="File with the passphrase of an encrypted key on its first line; - is "
    "standard input. Default: prompt on the terminal.",
)
@click.option("--base64", "is_base64", is_flag=True, help="FILE is base64-encoded.")
@new_key_options
@click.pass_obj
def command(
    invocation: Invocation,
    path: str,
    algorithm: str,
    wrapping_key_id: str,
    mechanism: WrapMechanism | None,
    form: KeyFormat | None,
    hash_name: HashAlgorithm | None,
    mgf_hash: HashAlgorithm | None,
    wrapped: bool,
    wrapping_version: int | None,
    passphrase_file: str | None,
    is_base64: bool,
    facts: NewKey,
    idempotency_key: str | None,
) -> None:
    """
    Import a key that was generated elsewhere.

    FILE is a PKCS#8 private key (PEM or DER, encrypted or not), a seed, or a raw
    symmetric key; - is standard input. The client wraps the key with an HSM key before
    it sends it.
    """
    source = Source(what="key", path=path, is_base64=is_base64)
    if wrapped:
        if passphrase_file is not None:
            raise click.UsageError("--passphrase-file can't be used with --wrapped.")
        sent = Wrapped(source.read(), mechanism, form, wrapping_version)
    else:
        if wrapping_version is not None:
            raise click.UsageError("--wrapping-version requires --wrapped.")
        sent = wrap_here(
            invocation,
            source,
            parse_algorithm(algorithm),
            wrapping_key_id=wrapping_key_id,
            mechanism=mechanism,
            form=form,
            hashes=(hash_name, mgf_hash),
            passphrase_file=passphrase_file,
        )
    operation = ImportKey(
        algorithm=algorithm,
        wrapping_key_id=wrapping_key_id,
        wrapped=sent.data,
        mechanism=sent.mechanism,
        format=sent.form,
        wrapping_version=sent.version,
        hash=hash_name,
        mgf_hash=mgf_hash,
        **facts,
    )
    change_key(invocation, operation, idempotency_key)
