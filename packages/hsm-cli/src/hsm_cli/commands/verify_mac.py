# SPDX-License-Identifier: MIT
"""The command ``verify-mac``."""

from __future__ import annotations

import click

from hsm_cli.actions.batches import run_batch
from hsm_cli.actions.options import HSMCommand, out_option, version_option
from hsm_cli.invocation import Invocation
from hsm_cli.io.files import Source
from hsm_cli.io.operands import payload_operands, proof_options
from hsm_core.operations import VerifyMac, VerifyMacBatch, VerifyMacItem


@click.pass_obj
def _batch(
    invocation: Invocation,
    *,
    key_id: str,
    source: Source,
    version: int | None,
    out: str | None,
    proof_path: str | None,
    proof_text: str | None,
) -> None:
    if proof_path is not None or proof_text is not None:
        raise click.UsageError(
            "--mac and --mac-base64 can't be used with --batch; put a mac in each item."
        )

    def request(items: tuple[VerifyMacItem, ...]) -> VerifyMacBatch:
        return VerifyMacBatch(key_id=key_id, items=items, version=version)

    run_batch(invocation, source, VerifyMacItem, request, out)


@click.command("verify-mac", cls=HSMCommand)
@payload_operands("payload", batch=_batch)
@proof_options("mac")
@version_option
@out_option
@click.pass_obj
def command(
    invocation: Invocation,
    key_id: str,
    source: Source,
    proof: Source,
    version: int | None,
    out: str | None,
) -> None:
    """
    Verify a MAC, by default with every key version. Exits with 6 on a mismatch.

    --out writes the results of a batch.
    """
    if out is not None:
        raise click.UsageError("--out requires --batch.")
    found = invocation.execute(
        VerifyMac(
            key_id=key_id, message=source.read(), mac=proof.read(), version=version
        )
    )
    invocation.output.record(found, f"Valid MAC (version {found.version}).")
