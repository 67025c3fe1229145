# SPDX-License-Identifier: MIT
"""The command ``status``."""

from __future__ import annotations

from collections import Counter

import click

from hsm_cli.actions.options import HSMCommand
from hsm_cli.invocation import Invocation
from hsm_cli.io.views import instant
from hsm_core.operations import (
    AlgorithmStatus,
    AuditStatus,
    HSMStatus,
    ScheduleStatus,
    Status,
    StoreStatus,
)


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
        ("store", _store(status.store)),
        *((finding.key_id, finding.problem) for finding in status.store.findings),
        ("audit", _audit(trail)),
        ("audit sync", trail.sync),
        ("audit log id", trail.log_id),
        ("audit head", f"{trail.head_seq} {trail.head_hash}"),
        ("audit starts at", str(trail.first_seq) if trail.first_seq else ""),
        *_schedules(status.schedules),
    ]
    return pairs + _providers(status) + [_algorithm(row) for row in status.algorithms]


def _store(store: StoreStatus) -> str:
    if store.locked:
        return f"LOCKED: {store.locked}"
    if not store.available:
        return "not available"
    if store.compared < store.to_compare:
        return f"available; verified {store.compared} of {store.to_compare} keys"
    when = f" at {instant(store.compared_at)}" if store.compared_at else ""
    return f"available; verified all keys{when}" if when else "available"


def _schedules(found: ScheduleStatus) -> list[tuple[str, str]]:
    """Return scheduled rotations and destructions, and the state of the clock."""
    rotations = f"{found.rotations_due} of {found.rotating} keys due"
    ends = f"{found.destructions} pending, {found.destructions_due} due"
    held = f"; ON HOLD: {found.held}, because the clock jumped" if found.held else ""
    leapt = f"jumps of {found.left_out_seconds} s are ignored"
    return [
        ("rotation", rotations if found.rotating else ""),
        ("destruction", f"{ends}{held}" if found.destructions else ""),
        ("clock", leapt if found.left_out_seconds else ""),
    ]


def _audit(trail: AuditStatus) -> str:
    happened = (
        f"; failed {trail.failures} times, recovered {trail.resumes} times"
        if trail.failures
        else ""
    )
    if trail.state == "ok" and trail.available:
        return f"available{happened}"
    if trail.state == "reserve":
        return f"DISK FULL: accepts administrative records only{happened}"
    return f"NOT AVAILABLE ({trail.cause or 'closed'}){happened}"


def _providers(status: HSMStatus) -> list[tuple[str, str]]:
    """Return each provider with its version and its number of algorithms."""
    served = Counter(
        (row.provider, row.provider_version)
        for row in status.algorithms
        if row.provider
    )
    return [
        (f"provider {name}", f"{version}; algorithms: {count}")
        for (name, version), count in served.items()
    ]


def _algorithm(row: AlgorithmStatus) -> tuple[str, str]:
    if row.hint:
        return row.algorithm, f"{row.status}: {row.hint}"
    return row.algorithm, f"{row.status} ({row.provider})"
