# SPDX-License-Identifier: MIT
"""Commands that print public keys."""

from __future__ import annotations

import click
import msgspec

from hsm_cli.invocation import Invocation
from hsm_cli.io.records import encode_record
from hsm_cli.io.results import deliver_public
from hsm_cli.parameters import (
    HSMCommand,
    file_option,
    key_operand,
    key_option,
    one_of,
    version_option,
)
from hsm_core.errors import InvalidInputError, UnsupportedOperationError
from hsm_core.operations.keys import GetPublicKey, PublicKey

_VERSION = version_option("Key version. Default: the current one.")
_SET = click.option(
    "--set", "as_set", is_flag=True, help="Print a JWK Set even for a single key."
)
_COMMENT = click.option(
    "--comment",
    metavar="TEXT",
    help="Comment of the OpenSSH format. Default: the key ID.",
)


@click.command("public-key", cls=HSMCommand)
@click.argument("keys", metavar="KEY...", nargs=-1)
@key_option
@_VERSION
@click.option(
    "--format",
    "form",
    type=click.Choice(["pem", "der", "jwk", "ssh"]),
    default="pem",
    show_default=True,
    help="Key format: SubjectPublicKeyInfo (PEM or DER), JWK or OpenSSH.",
)
@_SET
@_COMMENT
@file_option("Write the public key to a file.")
@click.pass_obj
def public_key(
    invocation: Invocation,
    keys: tuple[str, ...],
    key_option: str | None,
    version: int | None,
    form: str,
    as_set: bool,
    comment: str | None,
    out: str | None,
) -> None:
    """
    Print the public key of a key version. Default: the current version.

    With --format jwk, several keys are printed as a JWK Set.
    """
    if form != "jwk" and (as_set or len(keys) > 1):
        raise click.UsageError("--set and several KEYs require --format jwk.")
    if form != "ssh" and comment is not None:
        raise click.UsageError("--comment requires --format ssh.")
    if len(keys) > 1 or as_set:
        key_ids = keys if key_option is None else (*keys, key_option)
        _print_jwk(invocation, key_ids, version, out, as_set=as_set)
        return
    key_id = one_of(keys[0] if keys else None, key_option, name="KEY", flag="--key-id")
    key = invocation.execute(GetPublicKey(key_id=key_id, version=version))
    match form:
        case "pem":
            data = key.pem.encode()
        case "der":
            data = key.der
        case "ssh":
            data = _ssh_line(key, comment)
        case _:
            data = _json(_jwk_of(key))
    deliver_public(invocation.output, data, out, key)


@click.command("jwk", cls=HSMCommand)
@click.argument("key_ids", metavar="KEY...", nargs=-1, required=True)
@_VERSION
@_SET
@file_option("Write the JWK to a file.")
@click.pass_obj
def jwk(
    invocation: Invocation,
    key_ids: tuple[str, ...],
    version: int | None,
    as_set: bool,
    out: str | None,
) -> None:
    """
    Print public keys as JWK (RFC 7517); several keys are printed as a JWK Set.

    SLH-DSA and composite keys have no JWK format.
    """
    _print_jwk(invocation, key_ids, version, out, as_set=as_set)


def _print_jwk(
    invocation: Invocation,
    key_ids: tuple[str, ...],
    version: int | None,
    out: str | None,
    *,
    as_set: bool,
) -> None:
    if not key_ids:
        raise click.UsageError("Missing KEY. Pass it as an argument.")
    if version is not None and len(key_ids) > 1:
        raise click.UsageError("--version requires a single KEY.")
    found = [
        _jwk_of(invocation.execute(GetPublicKey(key_id=key_id, version=version)))
        for key_id in key_ids
    ]
    shown = {"keys": found} if as_set or len(found) > 1 else found[0]
    deliver_public(invocation.output, _json(shown), out)


def _jwk_of(key: PublicKey) -> object:
    if key.jwk is None:
        raise UnsupportedOperationError(
            f"{key.algorithm} keys have no JWK format.", field="key_id"
        )
    return key.jwk


def _json(value: object) -> bytes:
    return f"{msgspec.json.format(encode_record(value), indent=2)}\n".encode()


@click.command("ssh-public-key", cls=HSMCommand)
@key_operand
@_VERSION
@_COMMENT
@file_option("Write the public key to a file.")
@click.pass_obj
def ssh_public_key(
    invocation: Invocation,
    key_id: str,
    version: int | None,
    comment: str | None,
    out: str | None,
) -> None:
    """
    Print a public key in OpenSSH format, for authorized_keys or known_hosts.

    Supported keys: RSA, ECDSA and Ed25519.
    """
    key = invocation.execute(GetPublicKey(key_id=key_id, version=version))
    deliver_public(invocation.output, _ssh_line(key, comment), out)


def _ssh_line(key: PublicKey, comment: str | None) -> bytes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        PublicFormat,
        load_der_public_key,
    )

    text = key.key_id if comment is None else comment
    if not text.isprintable():
        raise InvalidInputError("comment must be one line of text.", field="comment")
    try:
        public = load_der_public_key(key.der)
        line = public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    except (UnsupportedAlgorithm, ValueError, TypeError):
        raise UnsupportedOperationError(
            f"OpenSSH does not support {key.algorithm} keys.", field="key_id"
        ) from None
    return f"{line} {text}".rstrip().encode() + b"\n"
