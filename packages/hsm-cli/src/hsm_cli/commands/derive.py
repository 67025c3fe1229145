# SPDX-License-Identifier: MIT
"""The command ``derive``."""

from __future__ import annotations

import click

from hsm_cli.actions.key_changes import change_key
from hsm_cli.actions.new_keys import NewKey, new_key_options
from hsm_cli.actions.options import HSMCommand
from hsm_cli.invocation import Invocation
from hsm_cli.io.files import Source, decode_pem
from hsm_cli.io.operands import text_or_hex
from hsm_cli.options.parameter_types import choice
from hsm_core.algorithms import HashAlgorithm
from hsm_core.operations import DeriveKey


@click.command("derive", cls=HSMCommand)
@click.argument("algorithm", metavar="ALGORITHM")
@click.option(
    "--from",
    "base_key_id",
    required=True,
    metavar="KEY",
    help="Key to derive from: an HKDF, EC or X25519 key.",
)
@click.option(
    "--peer",
    metavar="FILE",
    help="Public key of the other party (PEM or DER); EC and X25519 only.",
)
@click.option(
    "--hash",
    "hash_name",
    type=choice(HashAlgorithm),
    metavar="NAME",
    help="Hash of HKDF; EC and X25519 only. Default: SHA-256.",
)
@click.option(
    "--info", metavar="TEXT", help="HKDF info: context that is bound to the key."
)
@click.option("--info-hex", metavar="HEX", help="HKDF info as hex digits.")
@click.option("--salt", metavar="TEXT", help="HKDF salt.")
@click.option("--salt-hex", metavar="HEX", help="HKDF salt as hex digits.")
@new_key_options
@click.pass_obj
def command(
    invocation: Invocation,
    algorithm: str,
    base_key_id: str,
    peer: str | None,
    hash_name: HashAlgorithm | None,
    info: str | None,
    info_hex: str | None,
    salt: str | None,
    salt_hex: str | None,
    facts: NewKey,
    idempotency_key: str | None,
) -> None:
    """
    Derive a symmetric key from an HSM key with HKDF.

    For an EC or X25519 key, the input is the ECDH shared secret with --peer.
    """
    operation = DeriveKey(
        algorithm=algorithm,
        base_key_id=base_key_id,
        peer_public_key=_peer(peer),
        hash=hash_name,
        salt=text_or_hex(salt, salt_hex, name="--salt"),
        info=text_or_hex(info, info_hex, name="--info"),
        **facts,
    )
    change_key(invocation, operation, idempotency_key)


def _peer(path: str | None) -> bytes | None:
    if path is None:
        return None
    return decode_pem(Source(what="public key", path=path).read(), "PUBLIC KEY")
