# SPDX-License-Identifier: MIT
"""The command ``status``."""

from __future__ import annotations

import click

from hsm_cli.invocation import Invocation
from hsm_cli.options import HSMCommand
from hsm_cli.views import instant
from hsm_core.operations import HSMStatus, Status

__all__ = ["command"]


@click.command("status", cls=HSMCommand)
@click.pass_obj
def command(invocation: Invocation) -> None:
    """Show the health of the HSM."""
    status = invocation.execute(Status())
    invocation.output.pairs(status, _pairs(status))


def _pairs(status: HSMStatus) -> list[tuple[str, str]]:
    trail = status.audit
    pairs = [
        ("state", status.state),
        ("version", status.version),
        ("started", instant(status.started_at)),
        ("uptime", f"{status.uptime_seconds} s"),
        ("keys", str(status.keys)),
        ("tampered keys", str(status.tampered_keys)),
        ("audit", "available" if trail.available else "not available"),
        ("audit sync", trail.sync),
        ("audit log id", trail.log_id),
        ("audit head", f"{trail.head_seq} {trail.head_hash}"),
    ]
    for row in status.algorithms:
        provider = f" ({row.provider} {row.provider_version})" if row.provider else ""
        pairs.append((row.algorithm, f"{row.status}{provider}"))
    return pairs
