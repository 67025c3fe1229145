# SPDX-License-Identifier: MIT
"""The command ``verify``."""

from __future__ import annotations

import click

from hsm_cli.files import Source
from hsm_cli.invocation import Invocation
from hsm_cli.options import HSMCommand, payload_operands, proof_options, version_option
from hsm_cli.signing import signature_options, split_payload
from hsm_core.algorithms import HashAlgorithm, SignatureEncoding, SignatureScheme
from hsm_core.operations import Verify

__all__ = ["command"]


@click.command("verify", cls=HSMCommand)
@payload_operands("payload")
@proof_options("signature")
@signature_options
@version_option
@click.pass_obj
def command(
    invocation: Invocation,
    key_id: str,
    source: Source,
    proof: Source,
    prehashed: bool,
    scheme: SignatureScheme | None,
    hash_name: HashAlgorithm | None,
    encoding: SignatureEncoding | None,
    version: int | None,
) -> None:
    """Check a signature, of any version unless one is named. A wrong one: exit 6."""
    message, digest, chosen = split_payload(
        invocation,
        key_id,
        source,
        hash_name=hash_name,
        prehashed=prehashed,
    )
    found = invocation.execute(
        Verify(
            key_id=key_id,
            signature=proof.read(),
            message=message,
            digest=digest,
            version=version,
            scheme=scheme,
            hash=chosen,
            encoding=encoding,
        )
    )
    invocation.output.record(
        found, f"The signature is good; version {found.version} made it."
    )
