# SPDX-License-Identifier: MIT
"""Subcommands of ``policy``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final

import click

from hsm_cli.actions.approvals import describe_demand
from hsm_cli.actions.tokens import read_token, token_parts
from hsm_cli.exit_codes import PolicyDiffersError
from hsm_cli.invocation import Invocation
from hsm_cli.io.output import print_note
from hsm_cli.io.tables import Column, short_id
from hsm_cli.options import Group, ListOption, choice, none_unless_given
from hsm_cli.parameters import HSMCommand, LocalCommand
from hsm_core.algorithms import KeyUsage
from hsm_core.model import ApprovalDemand, PolicyOutcome, Role
from hsm_core.operations.policy import ExplainPolicy, ShowPolicy
from hsm_core.session import Session
from hsm_core.settings import PolicyProfile

_SECONDS: Final = 600.0
_FILE: Final = click.Path(path_type=Path, exists=False)


@click.group("policy", cls=Group, no_args_is_help=False)
def policy() -> None:
    """Show, validate, explain and test policies."""


@policy.command("show", cls=HSMCommand)
@click.option(
    "--built-in",
    type=choice(PolicyProfile),
    metavar="NAME",
    help="Print this built-in policy (default or strict) without a server.",
)
@click.option("--profile", "former", type=choice(PolicyProfile), hidden=True)
@click.pass_obj
def show(
    invocation: Invocation, built_in: PolicyProfile | None, former: PolicyProfile | None
) -> None:
    """
    Print the source of the active policy.

    Warnings, and the error of a new file that could not be loaded, go to standard
    error.
    """
    if built_in is not None and former is not None:
        raise click.UsageError(
            "--profile is the former name of --built-in. Pass only --built-in."
        )
    name = built_in or former
    if name is not None:
        from hsm_core.policies import built_in_policy

        policy = built_in_policy(name)
        text = policy.text.rstrip("\n")
        _print(invocation, {"policy": policy.policy_hash, "text": policy.text}, text)
        return
    found = invocation.execute(ShowPolicy())
    if found.problem:
        print_note(f"warning: the new policy file is not active: {found.problem}")
    for warning in found.warnings:
        print_note(f"warning: {warning}")
    _print(invocation, found, found.text.rstrip("\n"))


@policy.command("check", cls=LocalCommand)
@click.argument("file", type=_FILE)
@click.pass_obj
def check(invocation: Invocation, file: Path) -> None:
    """
    Check a policy file, without a server.

    If the file is invalid, the error names the line and the field, and the exit code is
    2. Warnings go to standard error.
    """
    from hsm_core.policies import load_policy

    policy = load_policy(file)
    for warning in policy.warnings:
        print_note(f"warning: {warning}")
    invocation.output.record(
        {
            "policy": policy.policy_hash,
            "rules": len(policy.rules),
            "identities": len(policy.people) + len(policy.token_identities),
            "warnings": list(policy.warnings),
        },
        f"valid, {len(policy.rules)} rules, policy {policy.policy_hash}",
    )


@policy.command("explain", cls=HSMCommand)
@click.argument("operation")
@click.option(
    "--principal",
    default="",
    metavar="NAME",
    help="Principal of the request. Default: the one that the policy maps the "
    "token or certificate to.",
)
@click.option(
    "--token",
    metavar="TOKEN",
    help="Access token of another issuer: @FILE, fd:N, or - for standard input. Only "
    "its claims are sent, and they are not verified.",
)
@click.option(
    "--role",
    "roles",
    cls=ListOption,
    type=choice(Role),
    metavar="ROLE",
    help="Role of the principal; repeatable or comma-separated.",
)
@click.option(
    "--key",
    "--key-id",
    "key_id",
    default="",
    metavar="KEY",
    help="Name or ID of the key.",
)
@click.option(
    "--other-key",
    "other_key_ids",
    cls=ListOption,
    metavar="KEY",
    help="Another key in the request, such as the wrapping key; repeatable or "
    "comma-separated.",
)
@click.option("--algorithm", default="", metavar="NAME", help="Algorithm of a new key.")
@click.option(
    "--usages",
    cls=ListOption,
    type=choice(KeyUsage),
    metavar="USAGE[,USAGE...]",
    help="Usages of a new key. Default: those of its algorithm.",
)
@click.option(
    "--name",
    metavar="NAME",
    help="Name of a new key, or the new name of an existing one (--key).",
)
@click.option(
    "--owner",
    metavar="NAME",
    help="Owner of a new key, or the new owner of an existing one (--key).",
)
@click.option(
    "--tags",
    cls=ListOption,
    may_be_empty=True,
    callback=none_unless_given,
    metavar="TAG[,TAG...]",
    help="Tags of a new key, or the new tags of an existing one (--key).",
)
@click.option(
    "--certificate-sha256",
    default="",
    metavar="HEX",
    help="SHA-256 fingerprint of the client certificate.",
)
@click.option(
    "--certificate-subject",
    default="",
    metavar="DN",
    help="Subject of the client certificate (RFC 4514).",
)
@click.option(
    "--certificate-name",
    "certificate_names",
    cls=ListOption,
    metavar="NAME",
    help="Subject alternative name, such as dns:ci.example.com; repeatable or "
    "comma-separated.",
)
@click.option(
    "--single-use", is_flag=True, help="Assume a token with an unused ID (jti)."
)
@click.option(
    "--source-address", default="", metavar="IP", help="IP address of the client."
)
@click.pass_obj
def explain(invocation: Invocation, /, token: str | None, **values: Any) -> None:
    """
    Explain how the policy decides a request, and which approvals it requires.

    OPERATION is a name such as Sign. The operation is not executed. If the decision
    depends on more facts, such as the key, the command fails.
    """
    claims = ""
    if token is not None:
        claims = json.dumps(token_parts(read_token(token, is_typed=True))[1])
    found = invocation.execute(ExplainPolicy(token_claims=claims, **values))
    verdict = f"{found.outcome.value} ({found.rule})"
    if not values["principal"]:
        roles = ", ".join(found.roles)
        credential = "certificate" if token is None else "token"
        print_note(f"The {credential} belongs to {found.principal} ({roles}).")
    if len(found.decided_as) > 1:
        print_note(
            f"Decided as {', '.join(found.decided_as)}; the strictest decision applies."
        )
    text = " ".join((f"{verdict}.", *found.needed))
    columns = (
        Column("Rule", lambda rule: rule.name),
        Column("Effect", lambda rule: rule.effect),
        Column("Operation", lambda rule: rule.operation),
        Column("Matches", lambda rule: "yes" if rule.holds else "no"),
        Column("Missing", lambda rule: ", ".join(rule.missing)),
    )
    invocation.output.table(found, found.rules, columns, text)


@policy.command("test", cls=HSMCommand)
@click.argument("file", type=_FILE)
@click.pass_obj
def test(invocation: Invocation, file: Path) -> None:
    """
    Test a policy file: replay the audit log and list decisions that would change.

    If any decision would change, the exit code is 6.
    """
    from hsm_core.policies import load_policy

    policy = load_policy(file)
    invocation.raise_timeout(_SECONDS)
    found = Session(invocation).test_policy(policy.text)
    for warning in found.warnings:
        print_note(f"warning: {warning}")
    invocation.output.table(
        found,
        found.changes,
        _CHANGE_COLUMNS,
        f"{found.requests} requests, {len(found.changes)} decisions would change",
    )
    if found.changes:
        raise PolicyDiffersError(
            f"{len(found.changes)} of {found.requests} decisions would change."
        )


def _print(invocation: Invocation, record: object, text: str) -> None:
    if invocation.output.is_record:
        invocation.output.record(record, text)
        return
    for line in text.splitlines():
        invocation.output.record(record, line)


def _decided(
    outcome: PolicyOutcome, rule: str, demands: tuple[ApprovalDemand, ...]
) -> str:
    required = "".join(f"; {describe_demand(demand)}" for demand in demands)
    return f"{outcome.value} ({rule}{required})"


_CHANGE_COLUMNS: Final = (
    Column("Record", lambda change: str(change.seq)),
    Column("Principal", lambda change: change.principal),
    Column("Operation", lambda change: change.operation),
    Column("Key", lambda change: short_id(change.key_id), lambda c: c.key_id),
    Column("Before", lambda c: _decided(c.before, c.before_rule, c.before_demands)),
    Column(
        "After",
        lambda change: _decided(change.after, change.after_rule, change.after_demands),
    ),
)
"""Columns of a table of `PolicyChange`."""
