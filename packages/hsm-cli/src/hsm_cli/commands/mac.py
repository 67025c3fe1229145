# SPDX-License-Identifier: MIT
"""The command ``mac``."""

from __future__ import annotations

import click

from hsm_cli.actions.batches import run_batch
from hsm_cli.actions.options import HSMCommand, out_option
from hsm_cli.invocation import Invocation
from hsm_cli.io.files import Source
from hsm_cli.io.operands import payload_operands
from hsm_cli.io.results import deliver
from hsm_core.operations import ComputeMac, ComputeMacBatch, MacInput


@click.pass_obj
def _batch(
    invocation: Invocation, *, key_id: str, source: Source, out: str | None
) -> None:
    def request(items: tuple[MacInput, ...]) -> ComputeMacBatch:
        return ComputeMacBatch(key_id=key_id, items=items)

    run_batch(invocation, source, MacInput, request, out)


@click.command("mac", cls=HSMCommand)
@payload_operands("payload", batch=_batch)
@out_option
@click.pass_obj
def command(
    invocation: Invocation, key_id: str, source: Source, out: str | None
) -> None:
    """Compute a MAC with the current key version. Prints it as base64."""
    found = invocation.execute(ComputeMac(key_id=key_id, message=source.read()))
    deliver(invocation.output, found, found.mac, out, private=False)
