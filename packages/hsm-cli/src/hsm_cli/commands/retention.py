# SPDX-License-Identifier: MIT
"""The commands below ``retention``."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from hsm_cli.actions.key_changes import change_key
from hsm_cli.actions.options import (
    HSMCommand,
    LocalCommand,
    generation_option,
    idempotency_option,
    warn_of_visible,
)
from hsm_cli.bootstrap import LedgerReport, verify_ledger
from hsm_cli.invocation import Invocation
from hsm_cli.io.log_keys import checked, end_pair, hmac_key_option, read_hmac_key
from hsm_cli.io.operands import key_operand
from hsm_cli.io.progress import Progress
from hsm_cli.io.views import instant
from hsm_cli.options.parameter_types import Group
from hsm_core.operations import (
    BeginLedger,
    ExtendRetention,
    HoldKey,
    PurgeItem,
    ReleaseKey,
    RetentionReport,
    RetentionStatus,
)

_HEADER = ("Key", "Versions", "State", "Due", "Window", "Purge", "Approval")


def _reason_option(fate: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    return click.option("--reason", required=True, metavar="TEXT", help=f"Why; {fate}.")


@click.group("retention", cls=Group, no_args_is_help=False)
def command() -> None:
    """See and change for how long old key versions are kept."""


@command.command("status", cls=HSMCommand)
@click.pass_obj
def status(invocation: Invocation) -> None:
    """Show what is due, what waits for its purge, and what keeps purges back."""
    report = invocation.execute(RetentionStatus())
    invocation.output.table(
        report,
        _HEADER,
        [_row(item) for item in report.items],
        _summary(report),
    )


@command.command("extend", cls=HSMCommand)
@key_operand
@click.option(
    "--version",
    type=click.IntRange(min=1),
    required=True,
    metavar="N",
    help="Version whose material is to be kept.",
)
@click.option(
    "--until",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"]),
    metavar="DATE",
    help="Until when, in UTC: YYYY-MM-DD or YYYY-MM-DDTHH:MM:SSZ.",
)
@click.option(
    "--days",
    type=click.IntRange(1, 36_500),
    metavar="N",
    help="For how many days from now, instead.",
)
@idempotency_option
@generation_option
@click.pass_obj
def extend(
    invocation: Invocation,
    key_id: str,
    version: int,
    until: datetime | None,
    days: int | None,
    idempotency_key: str | None,
) -> None:
    """Keep the material of a version for longer; this can't be taken back."""
    if (until is None) == (days is None):
        raise click.UsageError("Give either --until or --days.")
    if until is None:
        wanted = datetime.now(UTC) + timedelta(days=days or 0)
    else:
        wanted = until.replace(tzinfo=UTC)
    operation = ExtendRetention(key_id=key_id, version=version, until=wanted)
    change_key(invocation, operation, idempotency_key)


@command.command("hold", cls=HSMCommand)
@key_operand
@_reason_option("shown with the key")
@idempotency_option
@generation_option
@click.pass_obj
def hold(
    invocation: Invocation, key_id: str, reason: str, idempotency_key: str | None
) -> None:
    """Put a legal hold on a key: nothing of it is purged or destroyed."""
    change_key(invocation, HoldKey(key_id=key_id, reason=reason), idempotency_key)


@command.command("release", cls=HSMCommand)
@key_operand
@_reason_option("stands in the audit trail")
@idempotency_option
@generation_option
@click.pass_obj
def release(
    invocation: Invocation, key_id: str, reason: str, idempotency_key: str | None
) -> None:
    """End the hold on a key."""
    change_key(invocation, ReleaseKey(key_id=key_id, reason=reason), idempotency_key)


@command.group("ledger", cls=Group, no_args_is_help=False)
def ledger() -> None:
    """Verify the ledger in which every purge is attested, or begin a new one."""


@ledger.command("begin", cls=HSMCommand)
@_reason_option("stands in the new ledger and in the audit trail")
@click.pass_obj
def begin(invocation: Invocation, reason: str) -> None:
    """
    Let a new ledger take the place of one that is lost, so that purges go on.

    First move away what is left of the lost one and start the server again, which
    makes a new ledger. What the lost one attested stays lost; put it back instead if
    there is a copy. The built-in policies ask an Operator and an Auditor.
    """
    begun = invocation.execute(BeginLedger(reason=reason))
    invocation.output.pairs(
        begun,
        [
            ("log id", begun.log_id),
            ("in place of", begun.former_log_id),
            ("which reached", f"{begun.former_head_seq} {begun.former_head_hash}"),
        ],
    )


@ledger.command("verify", cls=LocalCommand)
@click.argument("path", type=click.Path(path_type=Path), metavar="FILE", required=True)
@click.option(
    "--audit-path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Trail in files or in SQLite that the ledger is compared with.",
)
@hmac_key_option("Key of trail and ledger")
@click.pass_context
def verify(
    ctx: click.Context, path: Path, audit_path: Path | None, hmac_key: str | None
) -> None:
    """
    Verify a ledger that lies here, without a server.

    With the trail, it is seen too whether the ledger was cut, replaced by an older
    copy, or lacks a purge. A damaged ledger: exit 7.
    """
    invocation: Invocation = ctx.obj
    warn_of_visible(ctx, "hmac_key")
    key = read_hmac_key(hmac_key)
    with Progress("records verified") as progress:
        report = verify_ledger(path, key, audit_path, progress.show)
    invocation.output.pairs(report, _pairs(report))


def _row(item: PurgeItem) -> tuple[str, ...]:
    return (
        item.key_id,
        ", ".join(map(str, item.versions)),
        item.state,
        instant(item.due_at) or "-",
        f"{item.window_days} d, {item.rule}",
        instant(item.purge_at) or "-",
        item.approval_id or "-",
    )


def _summary(report: RetentionReport) -> str:
    if not report.enabled:
        return "there is no retention: the server has no --retention-config"
    parts = [
        f"{report.queue} waiting, {report.scheduled_total} scheduled and "
        f"{report.completed_total} purged since the start; last sweep "
        f"{instant(report.swept_at) or '-'}"
    ]
    if not report.policy_sha256:
        parts.append("there is no policy yet, so that nothing is purged")
    if report.problem:
        parts.append(report.problem)
    if report.paused:
        waiting = f" (approval {report.pause_approval_id})"
        parts.append(
            f"purges are kept back: {report.paused}"
            + (waiting if report.pause_approval_id else "")
        )
    if report.failures:
        parts.append(f"{report.failures} keys could not be handled")
    found = report.ledger
    if found is not None:
        state = found.problem or ("" if found.available else "it can't be written")
        head = f"ledger: {found.head_seq} {found.head_hash}"
        parts.append(f"{head}; {state}" if state else head)
    return "; ".join(parts)


def _pairs(report: LedgerReport) -> list[tuple[str, str]]:
    compared = "not with a trail; give --audit-path"
    if report.anchors is not None:
        compared = f"with the trail, which names it {report.anchors} times"
    if report.former:
        compared += f"; ledgers lost before it: {report.former}"
    return [
        ("verdict", "intact"),
        ("checked", checked(macs=report.macs_checked)),
        ("compared", compared),
        ("records", str(report.records)),
        ("purges", str(report.purges)),
        ("aborted", str(report.aborted)),
        ("unfinished", str(report.unfinished)),
        ("log id", report.log_id),
        ("head", f"{report.head_seq} {report.head_hash}"),
        end_pair(is_clean=report.clean, in_use=report.in_use),
    ]
