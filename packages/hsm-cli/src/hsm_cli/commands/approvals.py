# SPDX-License-Identifier: MIT
"""Subcommands of ``approvals``."""

from __future__ import annotations

import sys
from datetime import UTC, datetime

import click
from msgspec import structs

from hsm_cli.actions.approvals import (
    APPROVAL_COLUMNS,
    CHANGE_HEADER,
    FIELD_HEADER,
    DecisionSigner,
    approval_operand,
    approval_pairs,
    change_row,
    checked_digest,
    digest_option,
    field_row,
    matching_fields,
    signing_options,
)
from hsm_cli.exit_codes import FileDiffersError
from hsm_cli.invocation import Invocation
from hsm_cli.io.files import Source
from hsm_cli.io.output import ask, neutral, print_note, terminal_columns
from hsm_cli.io.tables import render_pairs, render_table
from hsm_cli.options import Group, ListOption, choice
from hsm_cli.parameters import HSMCommand, reason_option
from hsm_client.waiting import ApprovalWait, execute_when_approved
from hsm_core.consent import changes, headline, statement
from hsm_core.errors import ApprovalRequiredError, InvalidInputError
from hsm_core.model import OPEN_APPROVALS, ApprovalState
from hsm_core.operations.approvals import (
    ApprovalInfo,
    ApprovalPage,
    Approve,
    CancelApproval,
    Deny,
    GetApproval,
    ListApprovals,
    Withdraw,
)

_LONGEST_PAGE = 100
_NO_REASON = "no reason given"


@click.group("approvals", cls=Group, no_args_is_help=False)
def approvals() -> None:
    """Review, approve and deny approval requests."""


@approvals.command("list", cls=HSMCommand)
@click.option(
    "--state",
    "states",
    cls=ListOption,
    type=choice(ApprovalState),
    metavar="STATES",
    help="Only requests in these states; repeatable or comma-separated. Default: "
    "pending, granted and reserved.",
)
@click.option("--all", "every", is_flag=True, help="Include closed requests.")
@click.option(
    "--kind", default="", metavar="NAME", help="Only requests for this operation."
)
@click.option("--key-id", default="", metavar="ID", help="Only requests for this key.")
@click.option(
    "--requester", default="", metavar="NAME", help="Only requests by this requester."
)
@click.option(
    "--limit",
    type=click.IntRange(1, 1000),
    default=50,
    show_default=True,
    metavar="N",
    help="Maximum number of requests to list.",
)
@click.option(
    "--cursor",
    default="",
    metavar="TEXT",
    help="Cursor of the next page, from the previous output.",
)
@click.pass_obj
def list_approvals(
    invocation: Invocation,
    /,
    states: tuple[ApprovalState, ...],
    every: bool,
    limit: int,
    **filters: str,
) -> None:
    """List open approval requests, newest first."""
    if every and states:
        raise click.UsageError("--state and --all are mutually exclusive.")
    filters["key_id"] = invocation.whole_key(filters["key_id"])
    wanted = states or (() if every else OPEN_APPROVALS)
    most = min(limit, _LONGEST_PAGE)
    operation = ListApprovals(states=wanted, per_page=most, **filters)
    page = _collect(invocation, operation, limit)
    notes = [f"{len(page.items)} shown" if page.items else "no approval requests"]
    if page.next_cursor:
        notes.append(f"next: --cursor {page.next_cursor}")
    if page.tampered:
        notes.append(f"integrity check failed: {', '.join(page.tampered)}")
    if page.key_tampered:
        notes.append(
            f"integrity check of the key failed: {', '.join(page.key_tampered)}"
        )
    invocation.output.table(
        page,
        page.items,
        APPROVAL_COLUMNS,
        "; ".join(notes),
    )


def _collect(
    invocation: Invocation, operation: ListApprovals, limit: int
) -> ApprovalPage:
    """Return up to *limit* approvals from as many pages as needed."""
    found = invocation.execute(operation)
    while found.next_cursor and len(found.items) < limit:
        most = min(limit - len(found.items), _LONGEST_PAGE)
        following = structs.replace(operation, per_page=most, cursor=found.next_cursor)
        page = invocation.execute(following)
        found = ApprovalPage(
            items=found.items + page.items,
            tampered=found.tampered + page.tampered,
            key_tampered=found.key_tampered + page.key_tampered,
            next_cursor=page.next_cursor,
        )
    return found


@approvals.command("show", cls=HSMCommand)
@approval_operand
@click.option(
    "--statement",
    "as_statement",
    is_flag=True,
    help="Print the statement that an approver signs, for ssh-keygen -Y sign or "
    "openssl.",
)
@click.option(
    "--deny",
    "denies",
    is_flag=True,
    help="With --statement: print the statement of a denial.",
)
@click.option(
    "--file",
    "path",
    metavar="FILE",
    help="Compare this file, or its digest, with the payload to be signed. Exits with "
    "6 on a mismatch.",
)
@click.pass_obj
def show(
    invocation: Invocation,
    approval_id: str,
    as_statement: bool,
    denies: bool,
    path: str | None,
) -> None:
    """
    Show an approval request: requester, changes and decisions.

    With --file, also compare a local file with the payload to be signed.
    """
    if denies and not as_statement:
        raise click.UsageError("--deny requires --statement.")
    if path is not None and as_statement:
        raise click.UsageError("--statement and --file are mutually exclusive.")
    approval, digest = _fetch(invocation, approval_id)
    if path is not None:
        _compare(invocation, approval, path)
    if as_statement:
        invocation.output.data(statement(approval_id, digest, granted=not denies))
    elif invocation.output.is_record:
        invocation.output.record(approval, "")
    else:
        output = invocation.output
        output.line(_described(approval, width=output.width, colour=output.colour))


def _compare(invocation: Invocation, approval: ApprovalInfo, path: str) -> None:
    """
    Compare a file with the payload to be signed, and print the matching fields.

    Raises:
        FileDiffersError: No field matches the file, or the request signs more.
    """
    source = Source(what="file", path=path)
    found = matching_fields(invocation, approval, source)
    if not found:
        raise FileDiffersError(
            f"{path} does not match the request: no field holds its bytes or its "
            "digest."
        )
    items = {f.name: f.number for f in approval.operation.fields}.get("items", 1)
    if items != 1:
        places = ", ".join(str(int(name.split(".")[1]) + 1) for name in found)
        raise FileDiffersError(
            f"{path} is item {places} of {items} to be signed. Review the others too."
        )
    click.echo(f"{path} matches the request ({', '.join(found)}).", err=True)


def _fetch(
    invocation: Invocation, approval_id: str, *, prepares: bool = False
) -> tuple[ApprovalInfo, str]:
    """Return an approval and its digest, computed by the client."""
    get = invocation.prepare if prepares else invocation.execute
    approval = get(GetApproval(approval_id=approval_id))
    if approval.approval_id != approval_id:
        raise InvalidInputError("The server returned a different approval request.")
    return approval, checked_digest(approval)


def _described(approval: ApprovalInfo, *, width: int, colour: bool) -> str:
    """Return the complete request as text without control characters."""
    shown = approval.operation
    tables = (
        (CHANGE_HEADER, [change_row(change) for change in changes(shown)]),
        (FIELD_HEADER, [field_row(field, shown) for field in shown.fields]),
    )
    changed, fields = (
        render_table(header, rows, width=width, colour=colour, fold=True)
        if rows
        else ""
        for header, rows in tables
    )
    pairs = [(name, text) for name, text in approval_pairs(approval) if text]
    first = neutral(str(headline(shown, datetime.now(UTC))))
    parts = [first, changed, render_pairs(pairs), fields]
    return "\n\n".join(part for part in parts if part)


@approvals.command("approve", cls=HSMCommand)
@approval_operand
@click.option(
    "--comment", default="", metavar="TEXT", help="Comment; stored with the decision."
)
@digest_option
@signing_options
@click.option("--yes", is_flag=True, help="Skip the confirmation prompt.")
@click.pass_obj
def approve(
    invocation: Invocation,
    approval_id: str,
    comment: str,
    digest: str,
    signer: DecisionSigner,
    yes: bool,
) -> None:
    """
    Approve the request of another user.

    The command shows the request, then sends the digest of what it showed, so the
    approval covers nothing else. Without a terminal on standard input there is no
    confirmation prompt, as with --yes.
    """
    found = _review(invocation, approval_id, digest)
    if not yes and not invocation.preview and _is_interactive():
        if ask("Approve? Type yes to continue: ").strip().lower() != "yes":
            raise click.UsageError("Not approved. Nothing was sent.")
    signature = signer.sign(approval_id, found, granted=True)
    after = invocation.execute(
        Approve(
            approval_id=approval_id, digest=found, comment=comment, signature=signature
        )
    )
    _report(invocation, after)


def _review(invocation: Invocation, approval_id: str, wanted: str) -> str:
    """Show the request, and return its digest, computed by the client."""
    approval, digest = _fetch(invocation, approval_id, prepares=True)
    if wanted and wanted.lower() != digest:
        raise InvalidInputError(
            f"--digest does not match the request, whose digest is {digest}.",
            field="digest",
        )
    # Standard error, so that the request does not mix with the result.
    is_terminal = sys.stderr is not None and sys.stderr.isatty()
    width = terminal_columns() if is_terminal else 0
    text = _described(approval, width=width, colour=invocation.output.colour)
    click.echo(text, err=True)
    return digest


def _is_interactive() -> bool:
    """Return whether standard input is a terminal."""
    return sys.stdin is not None and sys.stdin.isatty()


def _prompt_reason() -> str:
    if not _is_interactive():
        return _NO_REASON
    typed = ask("Reason: ").strip()
    if not typed:
        raise click.UsageError("Nothing was sent: a denial requires a reason.")
    return typed


@approvals.command("deny", cls=HSMCommand)
@approval_operand
@click.option(
    "--reason",
    metavar="TEXT",
    help="Reason; stored with the decision. Default: prompt on a terminal, otherwise "
    "'no reason given'.",
)
@digest_option
@signing_options
@click.pass_obj
def deny(
    invocation: Invocation,
    approval_id: str,
    reason: str | None,
    digest: str,
    signer: DecisionSigner,
) -> None:
    """
    Deny the request of another user. This closes the request.

    A signature is optional. If you sign, the command shows the request first.
    """
    signature = None
    if signer.is_given:
        digest = _review(invocation, approval_id, digest)
    text = _prompt_reason() if reason is None else reason
    if signer.is_given:
        signature = signer.sign(approval_id, digest, granted=False)
    operation = Deny(
        approval_id=approval_id, reason=text, digest=digest, signature=signature
    )
    _report(invocation, invocation.execute(operation))


@approvals.command("withdraw", cls=HSMCommand)
@approval_operand
@reason_option("stored with the decision")
@click.pass_obj
def withdraw(invocation: Invocation, approval_id: str, reason: str) -> None:
    """
    Withdraw your approval of a request that is not consumed yet.

    The request returns to pending if the remaining approvals are not enough.
    """
    operation = Withdraw(approval_id=approval_id, reason=reason)
    _report(invocation, invocation.execute(operation))


@approvals.command("cancel", cls=HSMCommand)
@approval_operand
@click.pass_obj
def cancel(invocation: Invocation, approval_id: str) -> None:
    """Cancel your own approval request."""
    _report(invocation, invocation.execute(CancelApproval(approval_id=approval_id)))


@approvals.command("wait", cls=HSMCommand)
@approval_operand
@click.pass_obj
def wait(invocation: Invocation, approval_id: str) -> None:
    """
    Wait until an approval request is granted, at most --wait-seconds.

    Exits with 0 once it is granted: run the original command again. Exits with 13 if it
    is denied, cancelled, consumed or expired, and with 11 on a timeout.
    """
    limits = invocation.approval_wait or ApprovalWait(notify=print_note)
    # The same wait as that of a command with --wait, for a request to look at.
    invocation.approval_wait = None

    def look() -> ApprovalInfo:
        found = invocation.execute(GetApproval(approval_id=approval_id))
        if found.state is ApprovalState.GRANTED:
            return found
        required = ApprovalRequiredError(approval_id=approval_id)
        required.approval = found
        raise required

    _report(invocation, execute_when_approved(invocation, look, limits))


def _report(invocation: Invocation, approval: ApprovalInfo) -> None:
    invocation.output.pairs(approval, approval_pairs(approval))
