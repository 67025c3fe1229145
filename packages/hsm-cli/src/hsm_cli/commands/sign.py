# SPDX-License-Identifier: MIT
"""The command ``sign``."""

from __future__ import annotations

import click

from hsm_cli.files import Source
from hsm_cli.invocation import Invocation
from hsm_cli.options import HSMCommand, out_option, payload_operands
from hsm_cli.results import deliver
from hsm_cli.signing import signature_options, split_payload
from hsm_core.algorithms import HashAlgorithm, SignatureEncoding, SignatureScheme
from hsm_core.operations import Sign

__all__ = ["command"]


@click.command("sign", cls=HSMCommand)
@payload_operands("payload")
@signature_options
@out_option
@click.pass_obj
def command(
    invocation: Invocation,
    key_id: str,
    source: Source,
    prehashed: bool,
    scheme: SignatureScheme | None,
    hash_name: HashAlgorithm | None,
    encoding: SignatureEncoding | None,
    out: str | None,
) -> None:
    """Sign data with the current version. Prints the signature as base64."""
    message, digest, chosen = split_payload(
        invocation, key_id, source, hash_name=hash_name, prehashed=prehashed
    )
    found = invocation.execute(
        Sign(
            key_id=key_id,
            message=message,
            digest=digest,
            scheme=scheme,
            hash=chosen,
            encoding=encoding,
        )
    )
    deliver(invocation.output, found, found.signature, out, private=False)
