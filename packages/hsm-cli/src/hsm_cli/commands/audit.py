# SPDX-License-Identifier: MIT
"""Subcommands of ``audit``."""

from __future__ import annotations

import re
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import click

from hsm_cli.invocation import Invocation
from hsm_cli.io.output import Form, Progress, print_note
from hsm_cli.io.results import EVENT_COLUMNS, NODE_COLUMNS, counted
from hsm_cli.io.tables import Column, row
from hsm_cli.offline import (
    ClusterLogReport,
    LedgerReport,
    OfflineReport,
    describe_checks,
    end_pair,
    follow_trail,
    hmac_key_option,
    read_approver_file,
    read_hmac_key,
    read_trail,
    recover_trail,
    verify_cluster,
    verify_trail,
)
from hsm_cli.options import Group, ListOption, given_as_flag, with_options
from hsm_cli.parameters import (
    HSMCommand,
    LocalCommand,
    refuse_options_of_requests,
    warn_of_literal_secrets,
)
from hsm_core.errors import AuthenticationError, HSMError
from hsm_core.model import AuditEntry, Record
from hsm_core.operations.audit import (
    AuditVerification,
    ListAuditEvents,
    VerifyAudit,
    following_range,
    join_ranges,
)
from hsm_core.secret_input import database_problem, split_password

_AGE: Final = re.compile(r"(\d{1,5})([smhdw])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


class VerifiedLogs(Record, frozen=True, kw_only=True):
    """
    Intact audit logs of a cluster in the JSON output of ``audit verify``.

    Attributes:
        verified: Number of verified records in all logs.
        logs: Result for each log.
    """

    verified: int
    logs: tuple[AuditVerification, ...]


class _Instant(click.DateTime):
    """Date, or date and time, in UTC, or the time that has passed since, such as 7d."""

    def __init__(self) -> None:
        super().__init__(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%SZ"])

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """Return an aware datetime."""
        age = _AGE.fullmatch(value) if isinstance(value, str) else None
        if age is not None:
            passed = int(age[1]) * _SECONDS[age[2]]
            return datetime.now(UTC) - timedelta(seconds=passed)
        found: datetime = super().convert(value, param, ctx)
        return found.replace(tzinfo=UTC)


_filters: Final = with_options(
    click.option(
        "--key-id", default="", metavar="KEY", help="Only records of this key."
    ),
    click.option(
        "--principal",
        default="",
        metavar="NAME",
        help="Only records of this principal.",
    ),
    click.option(
        "--kind",
        cls=ListOption,
        metavar="NAME",
        help="Only these operations, such as Sign, or kinds, such as system.start; "
        "repeatable or comma-separated.",
    ),
    click.option(
        "--code",
        default="",
        metavar="CODE",
        help="Only records with this result: ok or an error code.",
    ),
    click.option("--failed", is_flag=True, help="Only records of failed operations."),
    click.option(
        "--since",
        type=_Instant(),
        metavar="DATE",
        help="Start time, inclusive: YYYY-MM-DD or YYYY-MM-DDTHH:MM:SSZ in UTC, or a "
        "time ago, such as 7d, 12h or 30m.",
    ),
    click.option(
        "--until",
        type=_Instant(),
        metavar="DATE",
        help="End time, exclusive, in the same formats.",
    ),
)
"""Adds the options of a filter, the fields of `ListAuditEvents`, to a command."""


_local: Final = with_options(
    click.option(
        "--audit-path",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Verify and read this local audit log without a server. --key-id then "
        "takes the whole ID.",
    ),
    hmac_key_option("HMAC key of the audit log at --audit-path"),
)
"""Adds the options that name a local audit log to a command that reads records."""


@click.group("audit", cls=Group, no_args_is_help=False)
def audit() -> None:
    """Read and verify the audit log."""


@audit.command("events", cls=HSMCommand)
@click.option(
    "--limit",
    type=click.IntRange(1, 1000),
    default=50,
    show_default=True,
    metavar="N",
    help="Maximum number of records to show.",
)
@click.option(
    "--start-seq",
    type=click.IntRange(min=0),
    metavar="N",
    help="Sequence number to start at. Default: the newest, or 0 with --ascending.",
)
@click.option(
    "--log-id",
    default="",
    metavar="ID",
    help="Log of one node of a cluster. Default: all nodes, in order of time.",
)
@click.option(
    "--cursor",
    default="",
    metavar="CURSOR",
    help="Cursor of the next page, from the previous output (clusters only).",
)
@click.option("--ascending", is_flag=True, help="Oldest first.")
@_filters
@_local
@click.pass_context
def events(
    ctx: click.Context,
    /,
    limit: int,
    start_seq: int | None,
    log_id: str,
    cursor: str,
    ascending: bool,
    audit_path: Path | None,
    hmac_key: str | None,
    **filters: Any,
) -> None:
    """
    Show audit records, newest first. This read is itself recorded.

    With --audit-path, verify a local audit log and show its records, without changing
    it. If it is damaged, no record is shown and the exit code is 7.
    """
    invocation: Invocation = ctx.obj
    key = _local_key(ctx, audit_path, hmac_key)
    if audit_path is None:
        filters["key_id"] = invocation.whole_key(filters["key_id"])
    query = ListAuditEvents(
        start_seq=start_seq,
        log_id=log_id,
        cursor=cursor,
        limit=limit,
        ascending=ascending,
        **filters,
    )
    if audit_path is None:
        page = invocation.execute(query)
    else:
        page = read_trail(audit_path, key, query)
    more = f"; next: --start-seq {page.next_seq}" if page.next_seq is not None else ""
    if page.next_cursor:
        more = f"; next: --cursor {page.next_cursor}"
    columns: tuple[Column, ...] = EVENT_COLUMNS
    if any(entry.node for entry in page.items):
        columns = (*NODE_COLUMNS, *EVENT_COLUMNS)
    invocation.output.table(
        page,
        page.items,
        columns,
        f"head: {page.head_seq} {page.head_hash}{more}",
    )


@audit.command("follow", cls=HSMCommand)
@click.option(
    "--start-seq",
    type=click.IntRange(min=0),
    metavar="N",
    help="Sequence number to start at. Default: new records only.",
)
@_filters
@_local
@click.pass_context
def follow(
    ctx: click.Context,
    /,
    start_seq: int | None,
    audit_path: Path | None,
    hmac_key: str | None,
    **filters: Any,
) -> None:
    """
    Stream new audit records, one per line, until Ctrl-C.

    In a cluster, stream the records of all nodes, or with --start-seq those of the node
    that answers.

    After a lost connection the stream resumes without gaps or duplicates. Each
    connection is itself recorded.

    With --audit-path, stream a local audit log in files. The whole log is verified
    first, and each new record before it is shown.
    """
    invocation: Invocation = ctx.obj
    key, output = _local_key(ctx, audit_path, hmac_key), invocation.output
    operation = ListAuditEvents(start_seq=start_seq, **filters)

    def show(entry: AuditEntry) -> None:
        columns = (*NODE_COLUMNS, *EVENT_COLUMNS) if entry.node else EVENT_COLUMNS
        cells = row(columns, entry, is_wide=output.form is Form.WIDE)
        output.record(entry, "  ".join(cells))

    if audit_path is not None:
        follow_trail(audit_path, key, operation, show)
    with closing(invocation.follow(operation, _print_interruption)) as entries:
        for entry in entries:
            show(entry)


def _local_key(
    ctx: click.Context, path: Path | None, hmac_key: str | None
) -> bytes | None:
    """Return the HMAC key for a local audit log, if there is one to read."""
    warn_of_literal_secrets(ctx, "hmac_key")
    if path is not None:
        refuse_options_of_requests(ctx, "--audit-path", "log_id", "cursor")
        return read_hmac_key(hmac_key)
    if given_as_flag(ctx, "hmac_key"):
        raise click.UsageError("--hmac-key requires --audit-path.")
    return None


def _print_interruption(error: HSMError) -> None:
    # Minted tokens live for minutes; their expiry is normal here.
    if not isinstance(error, AuthenticationError):
        print_note(f"{error} [{error.code}]; reconnecting.")


@audit.command("verify", cls=HSMCommand)
@click.option(
    "--audit-path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Verify this local audit log (files or SQLite) without a server.",
)
@click.option(
    "--store",
    metavar="URL",
    help="Verify the audit logs of all nodes in this database "
    "(postgresql://USER@HOST/DATABASE) together, without a server. The password is "
    "read from PGPASSWORD or a password file.",
)
@hmac_key_option("HMAC key of the audit logs at --audit-path or --store")
@click.option(
    "--approver-keys",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Also verify every signed approval with these keys; requires --audit-path or "
    "--store. A policy (.yaml, .yml, .json), or lines of a principal and an OpenSSH "
    "public key.",
)
@click.pass_context
def verify(
    ctx: click.Context,
    audit_path: Path | None,
    store: str | None,
    hmac_key: str | None,
    approver_keys: Path | None,
) -> None:
    """
    Verify the server's audit log, or a local one with --audit-path.

    With --store, verify the audit logs and the retention ledger of a cluster together.
    This also detects a missing or truncated log.

    If the log is damaged, the error names the first bad record and the reason, and the
    exit code is 7.
    """
    invocation: Invocation = ctx.obj
    warn_of_literal_secrets(ctx, "hmac_key")
    if audit_path is not None and store is not None:
        raise click.UsageError("--store can't be used with --audit-path.")
    if store is not None or audit_path is not None:
        flag = "--store" if audit_path is None else "--audit-path"
        refuse_options_of_requests(ctx, flag)
    if store is not None:
        _verify_cluster(invocation, store, hmac_key, approver_keys)
    elif audit_path is not None:
        _verify_files(invocation, audit_path, hmac_key, approver_keys)
    elif approver_keys is not None:
        raise click.UsageError("--approver-keys requires --audit-path or --store.")
    elif given_as_flag(ctx, "hmac_key"):
        raise click.UsageError("--hmac-key requires --audit-path or --store.")
    else:
        _verify_on_server(invocation)


@audit.command("recover", cls=LocalCommand)
@click.option(
    "--audit-path",
    type=click.Path(path_type=Path),
    required=True,
    metavar="FILE",
    help="Live file of the audit log or of the retention ledger.",
)
@hmac_key_option("HMAC key of the audit log", required=True)
@click.pass_context
def recover(ctx: click.Context, audit_path: Path, hmac_key: str) -> None:
    """
    Recover a forked audit log in files, without a server.

    A fork arises when two processes write the same log. One branch stays in the log.
    The other moves to a separate file in the same directory; an audit record names that
    file and its SHA-256. A log with other damage is not changed, and the exit code is
    7.
    """
    invocation: Invocation = ctx.obj
    warn_of_literal_secrets(ctx, "hmac_key")
    found = recover_trail(audit_path, read_hmac_key(hmac_key))
    invocation.output.pairs(
        found,
        [
            ("other branch", str(audit_path.with_name(found.kept_as))),
            ("bytes", str(found.fragment_bytes)),
            ("SHA-256", found.fragment_sha256),
        ],
    )


def _verify_files(
    invocation: Invocation, path: Path, hmac_key: str | None, approver_keys: Path | None
) -> None:
    people = None if approver_keys is None else read_approver_file(approver_keys)
    key = read_hmac_key(hmac_key)
    with Progress("records verified") as progress:
        report = verify_trail(path, key, progress.show, people)
    headline = f"Audit log intact: {counted(report.records, 'record')}"
    invocation.output.pairs(report, _report_pairs(report), headline)


def _verify_cluster(
    invocation: Invocation, store: str, hmac_key: str | None, approver_keys: Path | None
) -> None:
    if problem := database_problem(store):
        raise click.UsageError(f"--store {problem}")
    if split_password(store)[1]:
        raise click.UsageError(
            "--store must not contain a password. Set PGPASSWORD, or name a password "
            "file (PGPASSFILE, or passfile= in the address)."
        )
    people = None if approver_keys is None else read_approver_file(approver_keys)
    key = read_hmac_key(hmac_key)
    with Progress("records verified") as progress:
        report = verify_cluster(store, key, progress.show, people)
    headline = f"Audit logs intact: {counted(report.records, 'record')}"
    pairs = [("checked", describe_checks(macs=report.macs_checked))]
    if report.consents_checked is not None:
        pairs.append(("signed approvals", f"{report.consents_checked}, all valid"))
    pairs += [
        (f"log of {log.node}", _log_line(log, log.records, log.first_seq))
        for log in report.logs
    ]
    if report.ledger is not None:
        pairs.append(("retention ledger", _ledger_line(report.ledger)))
    invocation.output.pairs(report, pairs, headline)


def _log_line(
    log: ClusterLogReport | AuditVerification, records: int, first_seq: int
) -> str:
    pruned = f", pruned before {first_seq}" if first_seq else ""
    return (
        f"{log.log_id}, {counted(records, 'record')}{pruned}, head {log.head_seq} "
        f"{log.head_hash}"
    )


def _ledger_line(ledger: LedgerReport) -> str:
    return (
        f"{ledger.log_id}, {counted(ledger.purges, 'purge')}, "
        f"{ledger.aborted} aborted, {ledger.unfinished} unfinished, "
        f"head {ledger.head_seq} {ledger.head_hash}"
    )


def _report_pairs(report: OfflineReport) -> list[tuple[str, str]]:
    torn = f"{report.torn_bytes} bytes" if report.torn_bytes else ""
    return [
        ("checked", describe_checks(macs=report.macs_checked)),
        ("signed approvals", _signed_approvals(report)),
        ("pruned before", str(report.first_seq) if report.first_seq else ""),
        ("log id", report.log_id),
        ("head", f"{report.head_seq} {report.head_hash}"),
        end_pair(is_clean=report.clean, in_use=report.in_use, macs=report.macs_checked),
        ("incomplete record", torn),
    ]


def _signed_approvals(report: OfflineReport) -> str:
    count = report.consents_checked
    return "" if count is None else f"{count}, all valid"


def _verify_on_server(invocation: Invocation) -> None:
    ranges: list[AuditVerification] = []
    following: VerifyAudit | None = VerifyAudit()
    with Progress("records verified") as progress:
        while following is not None:
            found = invocation.execute(following)
            ranges.append(found)
            total = None if found.node else found.head_seq + 1
            progress.show(sum(each.verified for each in ranges), total)
            following = following_range(following, found)
    logs = join_ranges(ranges)
    if logs[0].node:
        _show_logs(invocation, logs)
        return
    (log,) = logs
    headline = f"Audit log intact: {counted(log.verified, 'record')}"
    pairs = [
        ("pruned before", str(log.start_seq) if log.start_seq else ""),
        ("head", f"{log.head_seq} {log.head_hash}"),
    ]
    invocation.output.pairs(log, pairs, headline)


def _show_logs(invocation: Invocation, logs: tuple[AuditVerification, ...]) -> None:
    report = VerifiedLogs(verified=sum(log.verified for log in logs), logs=logs)
    headline = f"Audit logs intact: {counted(report.verified, 'record')}"
    pairs = [
        (f"log of {log.node}", _log_line(log, log.verified, log.start_seq))
        for log in logs
    ]
    invocation.output.pairs(report, pairs, headline)
