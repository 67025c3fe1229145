# SPDX-License-Identifier: MIT
"""The commands below ``approvals``."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import click

from hsm_cli.actions.approval_view import (
    APPROVAL_HEADER,
    CHANGE_HEADER,
    FIELD_HEADER,
    approval_pairs,
    approval_row,
    change_row,
    checked_digest,
    field_row,
    found_in,
)
from hsm_cli.actions.decisions import (
    Pen,
    approval_operand,
    digest_option,
    signing_options,
)
from hsm_cli.actions.options import HSMCommand
from hsm_cli.exit_codes import FileDiffersError
from hsm_cli.invocation import Invocation
from hsm_cli.io.files import Source
from hsm_cli.io.terminal import neutral, render_pairs, render_table
from hsm_cli.options.parameter_types import Group, ListOption, choice
from hsm_core.consent import changes, headline, statement
from hsm_core.errors import InvalidInputError
from hsm_core.model import ApprovalState
from hsm_core.operations import (
    ApprovalInfo,
    ApprovalPage,
    Approve,
    CancelApproval,
    Deny,
    GetApproval,
    ListApprovals,
    Withdraw,
)

_OPEN = (ApprovalState.PENDING, ApprovalState.GRANTED, ApprovalState.RESERVED)
_LONGEST_PAGE = 100
_LEAST_COLUMNS = 140
_NO_REASON = "no reason given"


@click.group("approvals", cls=Group, no_args_is_help=False)
def command() -> None:
    """See what others ask for, and agree or refuse."""


@command.command("list", cls=HSMCommand)
@click.option(
    "--state",
    "states",
    cls=ListOption,
    type=choice(ApprovalState),
    metavar="STATES",
    help="Only these; repeatable, or with commas between. Else pending, granted and "
    "reserved.",
)
@click.option("--all", "every", is_flag=True, help="Those that came to an end, too.")
@click.option("--kind", default="", metavar="NAME", help="Only of this operation.")
@click.option("--key-id", default="", metavar="ID", help="Only about this key.")
@click.option(
    "--requester", default="", metavar="NAME", help="Only what this person asked for."
)
@click.option(
    "--limit",
    type=click.IntRange(1, 1000),
    default=50,
    show_default=True,
    metavar="N",
    help="Approvals shown at most.",
)
@click.option(
    "--cursor", default="", metavar="TEXT", help="Where a list named as next begins."
)
@click.pass_obj
def list_approvals(
    invocation: Invocation,
    states: tuple[ApprovalState, ...],
    every: bool,
    kind: str,
    key_id: str,
    requester: str,
    limit: int,
    cursor: str,
) -> None:
    """Show approvals, newest first: those that are open."""
    if every and states:
        raise click.UsageError("Give --state or --all, not both.")
    operation = ListApprovals(
        states=states or (() if every else _OPEN),
        kind=kind,
        key_id=key_id,
        requester=requester,
        per_page=min(limit, _LONGEST_PAGE),
        cursor=cursor,
    )
    page = _collect(invocation, operation, limit)
    notes = [f"{len(page.items)} shown"]
    if page.next_cursor:
        notes.append(f"next: --cursor {page.next_cursor}")
    if page.tampered:
        notes.append(f"tampered with: {', '.join(page.tampered)}")
    if page.key_tampered:
        notes.append(f"their key was tampered with: {', '.join(page.key_tampered)}")
    invocation.output.table(
        page,
        APPROVAL_HEADER,
        [approval_row(approval) for approval in page.items],
        "; ".join(notes),
        least_columns=_LEAST_COLUMNS,
    )


def _collect(
    invocation: Invocation, operation: ListApprovals, limit: int
) -> ApprovalPage:
    """Return approvals of as many pages as it takes, for a page may be short."""
    items: list[ApprovalInfo] = []
    tampered: list[str] = []
    key_tampered: list[str] = []
    cursor = operation.cursor
    while True:
        page = invocation.execute(
            ListApprovals(
                states=operation.states,
                kind=operation.kind,
                key_id=operation.key_id,
                requester=operation.requester,
                per_page=min(limit - len(items), _LONGEST_PAGE),
                cursor=cursor,
            )
        )
        items += page.items
        tampered += page.tampered
        key_tampered += page.key_tampered
        cursor = page.next_cursor
        if not cursor or len(items) >= limit:
            break
    return ApprovalPage(
        items=tuple(items),
        tampered=tuple(tampered),
        key_tampered=tuple(key_tampered),
        next_cursor=cursor,
    )


@command.command("show", cls=HSMCommand)
@approval_operand
@click.option(
    "--statement",
    "as_statement",
    is_flag=True,
    help="Print what an approver signs, for ssh-keygen -Y sign or openssl, instead.",
)
@click.option(
    "--deny", "refuses", is_flag=True, help="With --statement: of who refuses."
)
@click.option(
    "--file",
    "path",
    metavar="FILE",
    help="Compare a file with what is to be signed: its bytes, or their digest. Exit "
    "code 6 if it is something else.",
)
@click.pass_obj
def show(
    invocation: Invocation,
    approval_id: str,
    as_statement: bool,
    refuses: bool,
    path: str | None,
) -> None:
    """
    Show a request: who asks, what changes, and what people said to it.

    With --file, also compare a file of your own with what is to be signed.
    """
    if refuses and not as_statement:
        raise click.UsageError("--deny goes with --statement.")
    if path is not None and as_statement:
        raise click.UsageError("Give --statement or --file, not both.")
    approval, digest = _fetch(invocation, approval_id)
    if path is not None:
        _compare(invocation, approval, path)
    if as_statement:
        invocation.output.data(statement(approval_id, digest, granted=not refuses))
    elif invocation.output.json:
        invocation.output.record(approval, "")
    else:
        output = invocation.output
        text = _described(approval, terminal=output.is_terminal, colour=output.colour)
        output.line(text)


def _compare(invocation: Invocation, approval: ApprovalInfo, path: str) -> None:
    """
    Compare a file with what is to be signed, and say where it was found.

    Raises:
        FileDiffersError: It is something else, or not all of it.
    """
    source = Source(what="file", path=path)
    found = found_in(invocation, approval, source)
    if not found:
        raise FileDiffersError(
            f"{path} is not what is to be signed: no field of the request holds its "
            "bytes or its digest."
        )
    items = {f.name: f.number for f in approval.operation.fields}.get("items", 1)
    if items != 1:
        places = ", ".join(str(int(name.split(".")[1]) + 1) for name in found)
        raise FileDiffersError(
            f"{path} is item {places} of {items} that are to be signed."
        )
    click.echo(f"{path} is what is to be signed ({', '.join(found)}).", err=True)


def _fetch(invocation: Invocation, approval_id: str) -> tuple[ApprovalInfo, str]:
    """Return an approval and the digest of what is shown of it, computed here."""
    approval = invocation.execute(GetApproval(approval_id=approval_id))
    if approval.approval_id != approval_id:
        raise InvalidInputError("The server has shown another approval.")
    return approval, checked_digest(approval)


def _described(approval: ApprovalInfo, *, terminal: bool, colour: bool) -> str:
    """Return all of what is asked for, as neutral text."""
    shown = approval.operation
    tables = (
        (CHANGE_HEADER, [change_row(change) for change in changes(shown)]),
        (FIELD_HEADER, [field_row(field, shown) for field in shown.fields]),
    )
    changed, fields = (
        render_table(header, rows, terminal=terminal, colour=colour) if rows else ""
        for header, rows in tables
    )
    pairs = [(name, text) for name, text in approval_pairs(approval) if text]
    first = neutral(str(headline(shown, datetime.now(UTC))))
    parts = [first, changed, render_pairs(pairs), fields]
    return "\n\n".join(part for part in parts if part)


@command.command("approve", cls=HSMCommand)
@approval_operand
@click.option("--comment", default="", metavar="TEXT", help="Recorded.")
@digest_option
@signing_options
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.pass_obj
def approve(
    invocation: Invocation,
    approval_id: str,
    comment: str,
    digest: str,
    pen: Pen,
    yes: bool,
) -> None:
    """
    Agree to what somebody else asked for.

    It is shown first. What is sent is the digest of what was shown, computed here, so
    that nothing else can be agreed to. Without a terminal on standard input nobody is
    asked, as with --yes.
    """
    found = _looked_at(invocation, approval_id, digest)
    if not yes and _is_typed():
        _confirm()
    signature = pen.sign(approval_id, found, granted=True)
    after = invocation.execute(
        Approve(
            approval_id=approval_id,
            digest=found,
            comment=comment,
            signature=signature,
        )
    )
    _report(invocation, after)


def _looked_at(invocation: Invocation, approval_id: str, wanted: str) -> str:
    """Show what is asked for to a person, and return its digest, computed here."""
    approval, digest = _fetch(invocation, approval_id)
    if wanted and wanted.lower() != digest:
        raise InvalidInputError(
            f"What is asked for has the digest {digest}, not the one given.",
            field="digest",
        )
    # What a person is to look at does not mix with the result.
    terminal = sys.stderr is not None and sys.stderr.isatty()
    text = _described(approval, terminal=terminal, colour=invocation.output.colour)
    click.echo(text, err=True)
    return digest


def _is_typed() -> bool:
    """Return whether somebody can answer on standard input."""
    return sys.stdin is not None and sys.stdin.isatty()


def _confirm() -> None:
    click.echo("Agree? Type yes to go on: ", nl=False, err=True)
    if sys.stdin.readline().strip().lower() != "yes":
        raise click.UsageError("Nothing was sent.")


def _ask_why() -> str:
    if not _is_typed():
        return _NO_REASON
    click.echo("Why? ", nl=False, err=True)
    typed = sys.stdin.readline()
    if not typed.strip():
        raise click.UsageError("Nothing was sent: a refusal has a --reason.")
    return typed.strip()


@command.command("deny", cls=HSMCommand)
@approval_operand
@click.option(
    "--reason",
    metavar="TEXT",
    help="Why; recorded. If absent, asked for on a terminal, else 'no reason given'.",
)
@digest_option
@signing_options
@click.pass_obj
def deny(
    invocation: Invocation,
    approval_id: str,
    reason: str | None,
    digest: str,
    pen: Pen,
) -> None:
    """
    Refuse what somebody else asked for; it comes to its end by that.

    What is signed is shown first. Nobody has to sign.
    """
    signature = None
    if pen.is_there:
        digest = _looked_at(invocation, approval_id, digest)
    why = _ask_why() if reason is None else reason
    if pen.is_there:
        signature = pen.sign(approval_id, digest, granted=False)
    operation = Deny(
        approval_id=approval_id, reason=why, digest=digest, signature=signature
    )
    _report(invocation, invocation.execute(operation))


@command.command("withdraw", cls=HSMCommand)
@approval_operand
@click.option("--reason", default="", metavar="TEXT", help="Why; recorded.")
@click.pass_obj
def withdraw(invocation: Invocation, approval_id: str, reason: str) -> None:
    """
    Withdraw your approval, until it is consumed.

    The request is pending again if the other approvals are not enough.
    """
    operation = Withdraw(approval_id=approval_id, reason=reason)
    _report(invocation, invocation.execute(operation))


@command.command("cancel", cls=HSMCommand)
@approval_operand
@click.pass_obj
def cancel(invocation: Invocation, approval_id: str) -> None:
    """Give up a request of your own."""
    _report(invocation, invocation.execute(CancelApproval(approval_id=approval_id)))


def _report(invocation: Invocation, approval: ApprovalInfo) -> None:
    invocation.output.pairs(approval, approval_pairs(approval))
