# SPDX-License-Identifier: MIT
"""Command ``watch``."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from itertools import count

import click

from hsm_cli.actions.approvals import APPROVAL_COLUMNS
from hsm_cli.invocation import Invocation
from hsm_cli.io.output import Output, neutral, print_note
from hsm_cli.io.results import counted, instant
from hsm_cli.io.tables import render_records
from hsm_cli.parameters import HSMCommand
from hsm_core.errors import AccessDeniedError, UnavailableError
from hsm_core.model import OPEN_APPROVALS, Record
from hsm_core.operations.approvals import ApprovalInfo, ListApprovals
from hsm_core.operations.service import Status

_CLEAR = "\x1b[H\x1b[2J"
"""Moves to the upper left corner, and clears the screen."""


class Watched(Record, frozen=True, kw_only=True):
    """
    State of the HSM in the JSON output of ``watch``.

    Attributes:
        at: Time of the client.
        audit: State of the audit log.
        audit_records: Number of records, pruned ones included.
        approvals: Open approval requests, up to 100; None if you may not list them.
    """

    at: datetime
    state: str
    keys: int
    tampered_keys: int
    audit: str
    audit_records: int
    approvals: tuple[ApprovalInfo, ...] | None


@click.command("watch", cls=HSMCommand)
@click.option(
    "--interval",
    type=click.FloatRange(0.5, 3600),
    default=2.0,
    show_default=True,
    metavar="SECONDS",
    help="Time between two updates, in seconds.",
)
@click.option(
    "--updates",
    type=click.IntRange(min=1),
    metavar="N",
    help="End after this number of updates. Default: until Ctrl-C.",
)
@click.pass_obj
def watch(invocation: Invocation, interval: float, updates: int | None) -> None:
    """
    Watch health and open approval requests, until Ctrl-C.

    On a terminal, the display is redrawn. Other output gets a line, or a JSON record,
    for each change.
    """
    output, before = invocation.output, None
    for number in count(1):
        try:
            found = _look(invocation)
        except UnavailableError as error:
            print_note(f"{error} [{error.code}]; retrying.")
        else:
            facts = (found.state, found.keys, found.tampered_keys, found.audit)
            now = (*facts, found.audit_records, found.approvals)
            if output.is_terminal and not output.is_record:
                output.line(_CLEAR + _screen(output, found))
            elif now != before:
                output.record(found, _line(found))
            before = now
        if number == updates:
            return
        time.sleep(interval)


def _look(invocation: Invocation) -> Watched:
    status = invocation.execute(Status())
    try:
        page = invocation.execute(ListApprovals(states=OPEN_APPROVALS, per_page=100))
        approvals: tuple[ApprovalInfo, ...] | None = page.items
    except AccessDeniedError:
        approvals = None
    return Watched(
        at=datetime.now(UTC),
        state=status.state,
        keys=status.keys,
        tampered_keys=status.tampered_keys,
        audit=status.audit.state,
        audit_records=status.audit.head_seq + 1,
        approvals=approvals,
    )


def _line(found: Watched) -> str:
    parts = [
        f"{instant(found.at)}  {found.state}",
        counted(found.keys, "key"),
        f"audit log {found.audit}, {counted(found.audit_records, 'record')}",
    ]
    if found.tampered_keys:
        parts.insert(2, f"{found.tampered_keys} TAMPERED")
    if found.approvals is not None:
        parts.append(f"{counted(len(found.approvals), 'approval request')} open")
    return "; ".join(parts)


def _screen(output: Output, found: Watched) -> str:
    text = neutral(_line(found))
    if not found.approvals:
        return text
    table = render_records(
        APPROVAL_COLUMNS,
        found.approvals,
        is_wide=False,
        width=output.width,
        colour=output.colour,
    )
    return f"{text}\n\n{table}"
