# SPDX-License-Identifier: MIT
"""Commands that list, show and edit keys, and print public keys."""

from __future__ import annotations

from typing import Any

import click
import msgspec

from hsm_cli.invocation import Invocation
from hsm_cli.io.output import encode_record
from hsm_cli.io.results import (
    KEY_HEADER,
    VERSION_HEADER,
    deliver_public,
    key_pairs,
    key_row,
    version_row,
)
from hsm_cli.options import ListOption, choice, none_unless_given
from hsm_cli.parameters import (
    HSMCommand,
    change_command,
    key_operand,
    version_option,
)
from hsm_core.errors import InvalidInputError, UnsupportedOperationError
from hsm_core.model import KeyState
from hsm_core.operations import (
    DescribeKey,
    GetPublicKey,
    ListKeys,
    ListVersions,
    PublicKey,
    UpdateKey,
)


@click.command("list", cls=HSMCommand)
@click.option(
    "--page",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Page number.",
)
@click.option(
    "--per-page",
    type=click.IntRange(1, 1000),
    default=50,
    show_default=True,
    metavar="N",
    help="Keys per page.",
)
@click.option(
    "--cursor",
    default="",
    metavar="TEXT",
    help="Cursor of the next page, from the previous output; replaces --page.",
)
@click.option(
    "--algorithm", default="", metavar="NAME", help="Only keys of this algorithm."
)
@click.option(
    "--state",
    type=choice(KeyState),
    metavar="STATE",
    help="Only keys whose current version is in this state. Default: all but "
    "destroyed keys.",
)
@click.option(
    "--tags",
    cls=ListOption,
    may_be_empty=True,
    metavar="TAGS",
    help="Only keys with all of these tags; repeatable or comma-separated.",
)
@click.option(
    "--search",
    default="",
    metavar="TEXT",
    help="Only keys whose ID starts with this text, or whose name, owner or a tag "
    "contains it.",
)
@click.pass_obj
def list_keys(invocation: Invocation, /, **filters: Any) -> None:
    """List keys, newest first."""
    found = invocation.execute(ListKeys(**filters))
    pages = max(1, -(-found.total // found.per_page))
    where = f"page {found.page} of {pages}" if found.page else "page by cursor"
    more = f"; next: --cursor {found.next_cursor}" if found.next_cursor else ""
    invocation.output.table(
        found,
        KEY_HEADER,
        [key_row(key) for key in found.items],
        f"{where}, {found.total} keys in total{more}",
    )


@click.command("describe", cls=HSMCommand)
@key_operand
@click.pass_obj
def describe(invocation: Invocation, key_id: str) -> None:
    """Show a key's metadata, after an integrity check of its stored data."""
    key = invocation.execute(DescribeKey(key_id=key_id))
    invocation.output.pairs(key, key_pairs(key))


@click.command("versions", cls=HSMCommand)
@key_operand
@click.pass_obj
def versions(invocation: Invocation, key_id: str) -> None:
    """List all versions of a key, oldest first."""
    found = invocation.execute(ListVersions(key_id=key_id))
    rows = [version_row(version) for version in found.items]
    invocation.output.table(found, VERSION_HEADER, rows)


@change_command(
    "update",
    UpdateKey,
    click.option(
        "--name", metavar="NAME", help="New unique name; empty removes the name."
    ),
    click.option("--description", metavar="TEXT", help="New description."),
    click.option("--owner", metavar="NAME", help="New owner."),
    click.option(
        "--tags",
        cls=ListOption,
        may_be_empty=True,
        callback=none_unless_given,
        metavar="TAGS",
        help="New tags, which replace all others; repeatable or comma-separated. Empty "
        "removes all tags.",
    ),
)
def update() -> None:
    """Edit a key's name, description, owner or tags. Other fields stay unchanged."""


@click.command("public-key", cls=HSMCommand)
@key_operand
@version_option("Key version. Default: the current one.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["pem", "der", "jwk"]),
    default="pem",
    show_default=True,
    help="Output format: SubjectPublicKeyInfo (PEM or DER), or JWK.",
)
@click.option("--out", metavar="FILE", help="Write the public key to a file.")
@click.pass_obj
def public_key(
    invocation: Invocation, key_id: str, version: int | None, form: str, out: str | None
) -> None:
    """Print the public key of a key version. Default: the current version."""
    key = invocation.execute(GetPublicKey(key_id=key_id, version=version))
    match form:
        case "pem":
            data = key.pem.encode()
        case "der":
            data = key.der
        case _:
            data = f"{encode_record(key.jwk)}\n".encode()
    deliver_public(invocation.output, data, out, key)


@click.command("jwk", cls=HSMCommand)
@click.argument("key_ids", metavar="KEY...", nargs=-1, required=True)
@version_option("Key version. Default: the current one.")
@click.option(
    "--set", "as_set", is_flag=True, help="Print a JWK Set even for a single key."
)
@click.option("--out", metavar="FILE", help="Write the JWK to a file.")
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
    if version is not None and len(key_ids) > 1:
        raise click.UsageError("--version requires a single KEY.")
    found = [_fetch_jwk(invocation, key_id, version) for key_id in key_ids]
    shown = {"keys": found} if as_set or len(found) > 1 else found[0]
    data = f"{msgspec.json.format(encode_record(shown), indent=2)}\n".encode()
    deliver_public(invocation.output, data, out)


def _fetch_jwk(invocation: Invocation, key_id: str, version: int | None) -> object:
    key = invocation.execute(GetPublicKey(key_id=key_id, version=version))
    if key.jwk is None:
        raise UnsupportedOperationError(
            f"{key.algorithm} keys have no JWK format.", field="key_id"
        )
    return key.jwk


@click.command("ssh-public-key", cls=HSMCommand)
@key_operand
@version_option("Key version. Default: the current one.")
@click.option("--comment", metavar="TEXT", help="Comment. Default: the key ID.")
@click.option("--out", metavar="FILE", help="Write the public key to a file.")
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
    text = key.key_id if comment is None else comment
    if not text.isprintable():
        raise InvalidInputError("comment must be one line of text.", field="comment")
    data = f"{_line(key)} {text}".rstrip().encode() + b"\n"
    deliver_public(invocation.output, data, out)


def _line(key: PublicKey) -> str:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        PublicFormat,
        load_der_public_key,
    )

    try:
        public = load_der_public_key(key.der)
        return public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    except (UnsupportedAlgorithm, ValueError, TypeError):
        raise UnsupportedOperationError(
            f"OpenSSH does not support {key.algorithm} keys.", field="key_id"
        ) from None
