# SPDX-License-Identifier: MIT
"""Subcommands of ``retention``."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import click

from hsm_cli.invocation import Invocation
from hsm_cli.io.output import Progress
from hsm_cli.io.results import counted, instant
from hsm_cli.io.tables import Column, short_id
from hsm_cli.offline import (
    LedgerReport,
    describe_checks,
    end_pair,
    hmac_key_option,
    read_hmac_key,
    verify_ledger,
)
from hsm_cli.options import Group
from hsm_cli.parameters import (
    ChangeCommand,
    HSMCommand,
    LocalCommand,
    change_command,
    key_operand,
    reason_option,
    version_option,
    warn_of_literal_secrets,
)
from hsm_core.operations.retention import (
    BeginLedger,
    ExtendRetention,
    HoldKey,
    ReleaseKey,
    RetentionReport,
    RetentionStatus,
)

_COLUMNS: Final = (
    Column("Key", lambda item: short_id(item.key_id), lambda item: item.key_id),
    Column("Versions", lambda item: ", ".join(map(str, item.versions))),
    Column("State", lambda item: item.state),
    Column("Due", lambda item: instant(item.due_at)),
    Column("Window", None, lambda item: f"{item.window_days} d, {item.rule}"),
    Column("Purge", lambda item: instant(item.purge_at)),
    Column("Approval", lambda i: short_id(i.approval_id), lambda i: i.approval_id),
)
"""Columns of a table of `PurgeItem`."""


@click.group("retention", cls=Group, no_args_is_help=False)
def retention() -> None:
    """Manage retention windows, legal holds and the retention ledger."""


@retention.command("status", cls=HSMCommand)
@click.pass_obj
def status(invocation: Invocation) -> None:
    """Show due and scheduled purges, and what blocks them."""
    report = invocation.execute(RetentionStatus())
    invocation.output.table(report, report.items, _COLUMNS, _summary(report))


@retention.command("extend", cls=ChangeCommand)
@key_operand
@version_option("Key version to keep.", required=True)
@click.option(
    "--until",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"]),
    metavar="DATE",
    help="End of the retention window in UTC: YYYY-MM-DD or YYYY-MM-DDTHH:MM:SSZ.",
)
@click.option(
    "--days",
    type=click.IntRange(1, 36_500),
    metavar="N",
    help="Retention window in days from the end of today (UTC), in place of --until.",
)
@click.pass_obj
def extend(
    invocation: Invocation,
    key_id: str,
    version: int,
    until: datetime | None,
    days: int | None,
) -> None:
    """Extend the retention window of a key version. Irreversible."""
    if (until is None) == (days is None):
        raise click.UsageError("Pass either --until or --days.")
    if until is None:
        # A repetition must ask for the same, or it is another request.
        today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        wanted = today + timedelta(days=(days or 0) + 1)
    else:
        wanted = until.replace(tzinfo=UTC)
    invocation.change_key(ExtendRetention(key_id=key_id, version=version, until=wanted))


@change_command(
    "hold", HoldKey, reason_option("recorded in the key's metadata", required=True)
)
def hold() -> None:
    """Place a legal hold on a key: it can't be purged or destroyed."""


@change_command(
    "release", ReleaseKey, reason_option("recorded in the audit log", required=True)
)
def release() -> None:
    """Release the legal hold on a key."""


retention.add_command(hold)
retention.add_command(release)


@retention.group("ledger", cls=Group, no_args_is_help=False)
def ledger() -> None:
    """Verify the retention ledger, or replace a lost one."""


@ledger.command("begin", cls=HSMCommand)
@reason_option("recorded in the new ledger and in the audit log", required=True)
@click.pass_obj
def begin(invocation: Invocation, reason: str) -> None:
    """
    Replace a lost retention ledger, so that purges can continue.

    If you have a backup of the lost ledger, restore it instead: its records can't be
    recreated. Otherwise move its remains away and restart the server, which creates a
    new ledger, then run this command. The built-in policies require the approval of an
    Operator and an Auditor.
    """
    begun = invocation.execute(BeginLedger(reason=reason))
    invocation.output.pairs(
        begun,
        [
            ("log id", begun.log_id),
            ("replaces", begun.former_log_id),
            ("replaced head", f"{begun.former_head_seq} {begun.former_head_hash}"),
        ],
    )


@ledger.command("verify", cls=LocalCommand)
@click.argument("path", type=click.Path(path_type=Path), metavar="FILE", required=True)
@click.option(
    "--audit-path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Audit log (files or SQLite) to compare the ledger with.",
)
@hmac_key_option("HMAC key of audit log and ledger")
@click.pass_context
def verify(
    ctx: click.Context, path: Path, audit_path: Path | None, hmac_key: str | None
) -> None:
    """
    Verify a local retention ledger, without a server.

    The ledger of a cluster is verified by `hsm-cli audit verify --store`.

    With --audit-path, also detect a ledger that was truncated, replaced by an older
    copy, or lacks a purge. If the ledger is damaged, the exit code is 7.
    """
    invocation: Invocation = ctx.obj
    warn_of_literal_secrets(ctx, "hmac_key")
    key = read_hmac_key(hmac_key)
    with Progress("records verified") as progress:
        report = verify_ledger(path, key, audit_path, progress.show)
    headline = f"Retention ledger intact: {counted(report.records, 'record')}"
    invocation.output.pairs(report, _pairs(report), headline)


def _summary(report: RetentionReport) -> str:
    if not report.enabled:
        return "retention is off: the server has no --retention-config"
    if report.node:
        return f"node {report.node} runs retention; its report shows the queue"
    parts = [
        f"{report.queue} pending; since startup {report.scheduled_total} scheduled, "
        f"{report.completed_total} purged; last run {instant(report.swept_at) or '-'}"
    ]
    if not report.policy_sha256:
        parts.append("no retention policy: nothing is purged")
    if report.problem:
        parts.append(report.problem)
    if report.paused:
        waiting = f" (approval {report.pause_approval_id})"
        parts.append(
            f"purges are paused: {report.paused}"
            + (waiting if report.pause_approval_id else "")
        )
    if report.failures:
        parts.append(f"the last run failed for {counted(report.failures, 'key')}")
    found = report.ledger
    if found is not None:
        state = found.problem or ("" if found.available else "not writable")
        head = f"ledger: {found.head_seq} {found.head_hash}"
        parts.append(f"{head}; {state}" if state else head)
    return "; ".join(parts)


def _pairs(report: LedgerReport) -> list[tuple[str, str]]:
    compared = "no; pass --audit-path to compare it with the audit log"
    if report.anchors is not None:
        compared = f"with the audit log: {report.anchors} anchors match"
    if report.former:
        compared += f"; lost ledgers before it: {report.former}"
    return [
        ("checked", describe_checks(macs=report.macs_checked)),
        ("compared", compared),
        ("purges", str(report.purges)),
        ("aborted", str(report.aborted)),
        ("unfinished", str(report.unfinished)),
        ("log id", report.log_id),
        ("head", f"{report.head_seq} {report.head_hash}"),
        end_pair(is_clean=report.clean, in_use=report.in_use, macs=report.macs_checked),
    ]
