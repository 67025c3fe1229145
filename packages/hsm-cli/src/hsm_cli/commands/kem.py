# SPDX-License-Identifier: MIT
"""Commands of KEM keys: sealed blobs and encapsulation."""

from __future__ import annotations

import click

from hsm_cli.invocation import Invocation
from hsm_cli.io.files import Source
from hsm_cli.io.results import (
    check_destination,
    check_destinations,
    deliver,
    deliver_key,
    deliver_pair,
    pair_options,
)
from hsm_cli.operands import aad_options, payload_operands
from hsm_cli.parameters import HSMCommand, key_operand, out_option, version_option
from hsm_core.model import KeyId
from hsm_core.operations.encryption import (
    Ciphertext,
    Decapsulate,
    Encapsulate,
    Open,
    Seal,
)


@click.command("seal", cls=HSMCommand)
@payload_operands("plaintext")
@aad_options
@click.option(
    "--public-key",
    metavar="FILE",
    help="Seal offline with this public key (PEM or DER). KEY must be the full ID of "
    "the key, and --version the version of the public key.",
)
@version_option("Version of --public-key.")
@out_option
@click.pass_obj
def seal(
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
    # They load all of the cryptography.
    from hsm_cli.io.key_files import read_public_key
    from hsm_core.primitives import seal as seal_offline

    algorithm, der = read_public_key(Source(what="public key", path=path))
    ciphertext = seal_offline(algorithm, der, key_id, version, plaintext, aad)
    return Ciphertext(key_id=KeyId(key_id), version=version, ciphertext=ciphertext)


@click.command("open", cls=HSMCommand)
@payload_operands("ciphertext", always_base64=True)
@aad_options
@out_option
@click.pass_obj
def open_sealed(
    invocation: Invocation, key_id: str, source: Source, aad: bytes, out: str | None
) -> None:
    """
    Open a sealed blob. Prints the raw plaintext; --out creates a private file.

    FILE holds the raw blob, or base64 with --base64. Base64 text is accepted in place
    of FILE.
    """
    found = invocation.execute(Open(key_id=key_id, ciphertext=source.read(), aad=aad))
    if out is None and not invocation.output.is_record:
        out = "-"
    deliver(invocation.output, found, found.plaintext, out, private=True)


@click.command("encapsulate", cls=HSMCommand)
@key_operand
@pair_options("shared secret")
@click.pass_obj
def encapsulate(
    invocation: Invocation, key_id: str, out: str | None, ciphertext_out: str | None
) -> None:
    """
    Generate a shared secret and its encapsulation (ciphertext) for a KEM key.

    decapsulate recovers the secret from the ciphertext, which is printed as base64
    unless --ciphertext-out is given.
    """
    check_destinations(invocation.output, out, ciphertext_out)
    found = invocation.execute(Encapsulate(key_id=key_id))
    deliver_pair(
        invocation.output,
        found,
        found.ciphertext,
        found.shared_secret,
        out,
        ciphertext_out,
    )


@click.command("decapsulate", cls=HSMCommand)
@payload_operands("ciphertext", always_base64=True)
@version_option("Key version. Default: the current one.")
@out_option
@click.pass_obj
def decapsulate(
    invocation: Invocation,
    key_id: str,
    source: Source,
    version: int | None,
    out: str | None,
) -> None:
    """
    Recover the shared secret of an encapsulation. --out creates a private file.

    An encapsulation that was altered, or made for another key, yields a different
    secret and no error (implicit rejection, FIPS 203).
    """
    check_destination(invocation.output, out)
    found = invocation.execute(
        Decapsulate(key_id=key_id, ciphertext=source.read(), version=version)
    )
    deliver_key(invocation.output, found, found.shared_secret, out)
