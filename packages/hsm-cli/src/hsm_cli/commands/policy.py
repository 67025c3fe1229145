# SPDX-License-Identifier: MIT
"""The commands below ``policy``."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import click

from hsm_cli.actions.approval_view import demand_words
from hsm_cli.actions.options import HSMCommand, LocalCommand
from hsm_cli.exit_codes import PolicyDiffersError
from hsm_cli.invocation import Invocation
from hsm_cli.io.output import print_note
from hsm_cli.options.parameter_types import (
    Group,
    ListOption,
    choice,
    none_unless_given,
)
from hsm_core.algorithms import KeyUsage
from hsm_core.model import ApprovalDemand, PolicyOutcome, Role
from hsm_core.operations import (
    ExplainPolicy,
    PolicyChange,
    PolicyExplanation,
    ShowPolicy,
)
from hsm_core.session import Session
from hsm_core.settings import PolicyProfile

_SECONDS: Final = 600.0
_FILE: Final = click.Path(path_type=Path, exists=False)


@click.group("policy", cls=Group, no_args_is_help=False)
def command() -> None:
    """Show, check, explain and try policies."""


@command.command("show", cls=HSMCommand)
@click.option(
    "--profile",
    type=choice(PolicyProfile),
    metavar="NAME",
    help="Print this built-in policy instead, and ask no server: default or strict.",
)
@click.pass_obj
def show(invocation: Invocation, profile: PolicyProfile | None) -> None:
    """
    Print the policy in force, as it was written.

    Warnings, and a file that could not be put in force, are told on standard error.
    """
    if profile is not None:
        from hsm_core.policies import built_in_policy

        policy = built_in_policy(profile)
        text = policy.text.rstrip("\n")
        _print(invocation, {"policy": policy.policy_hash, "text": policy.text}, text)
        return
    found = invocation.execute(ShowPolicy())
    if found.problem:
        print_note(f"warning: another file is not in force: {found.problem}")
    for warning in found.warnings:
        print_note(f"warning: {warning}")
    _print(invocation, found, found.text.rstrip("\n"))


@command.command("check", cls=LocalCommand)
@click.argument("file", type=_FILE)
@click.pass_obj
def check(invocation: Invocation, file: Path) -> None:
    """
    Check a policy file; no server is asked.

    A file that is not valid: exit 2, and line and field are named. What was probably
    not meant is told on standard error.
    """
    from hsm_core.policies import load_policy

    policy = load_policy(file)
    for warning in policy.warnings:
        print_note(f"warning: {warning}")
    invocation.output.record(
        {
            "policy": policy.policy_hash,
            "rules": len(policy.rules),
            "identities": len(policy.people),
            "warnings": list(policy.warnings),
        },
        f"valid, {len(policy.rules)} rules, policy {policy.policy_hash}",
    )


@command.command("explain", cls=HSMCommand)
@click.argument("operation")
@click.option(
    "--principal",
    default="",
    metavar="NAME",
    help="Who would ask; by default whom the policy knows by the certificate.",
)
@click.option(
    "--role",
    "roles",
    cls=ListOption,
    type=choice(Role),
    metavar="ROLE",
    help="A role of theirs; repeatable, or several with commas between.",
)
@click.option(
    "--key",
    "--key-id",
    "key_id",
    default="",
    metavar="KEY",
    help="UUID or name of the key it is about.",
)
@click.option(
    "--other-key",
    "other_key_ids",
    cls=ListOption,
    metavar="KEY",
    help="A key that it names besides, such as the one that wraps; repeatable, or "
    "several with commas between.",
)
@click.option("--algorithm", default="", metavar="NAME", help="Of a key to be made.")
@click.option(
    "--usages",
    cls=ListOption,
    type=choice(KeyUsage),
    metavar="USAGE[,USAGE...]",
    help="Of a key to be made; by default its algorithm's.",
)
@click.option(
    "--name",
    metavar="NAME",
    help="Name of a key to be made, or a new one; --key names an existing key.",
)
@click.option("--owner", metavar="NAME", help="The same of its owner.")
@click.option(
    "--tags",
    cls=ListOption,
    may_be_empty=True,
    callback=none_unless_given,
    metavar="TAG[,TAG...]",
    help="The same of its tags.",
)
@click.option(
    "--certificate-sha256", default="", metavar="HEX", help="Of their certificate."
)
@click.option(
    "--certificate-subject", default="", metavar="DN", help="Its subject, as RFC 4514."
)
@click.option(
    "--certificate-name",
    "certificate_names",
    cls=ListOption,
    metavar="NAME",
    help="An alternative name, such as dns:ci.example.com; repeatable, or several with "
    "commas between.",
)
@click.option(
    "--single-use",
    is_flag=True,
    help="They show a token with an id that was not used yet.",
)
@click.option("--source-address", default="", metavar="IP", help="Where they would be.")
@click.pass_obj
def explain(invocation: Invocation, /, **values: Any) -> None:
    """
    Say what the policy would say to a request, why, and what would be needed.

    OPERATION is a name such as Sign. Nothing is done. A question that can't be answered
    without more facts, such as the key, is refused.
    """
    found = invocation.execute(ExplainPolicy(**values))
    verdict = f"{found.outcome.value} ({found.rule})"
    if not values["principal"]:
        roles = ", ".join(found.roles)
        print_note(f"The certificate is that of {found.principal} ({roles}).")
    if len(found.decided_as) > 1:
        print_note(f"Decided as {', '.join(found.decided_as)}; the strictest counts.")
    text = " ".join((f"{verdict}.", *found.needed))
    columns = ("Rule", "Effect", "Operation", "Holds", "Missing")
    invocation.output.table(found, columns, _rule_rows(found), text)


@command.command("test", cls=HSMCommand)
@click.argument("file", type=_FILE)
@click.pass_obj
def test(invocation: Invocation, file: Path) -> None:
    """
    Replay the server's trail against a policy file, and list what would change.

    Every recorded request is decided again. If any would be answered otherwise: exit 6.
    """
    from hsm_core.policies import load_policy

    policy = load_policy(file)
    invocation.wait_at_least(_SECONDS)
    found = Session(invocation).test_policy(policy.text)
    for warning in found.warnings:
        print_note(f"warning: {warning}")
    invocation.output.table(
        found,
        ("Record", "Principal", "Operation", "Key", "Before", "After"),
        [_change_row(change) for change in found.changes],
        f"{found.requests} requests, {len(found.changes)} would be answered otherwise",
    )
    if found.changes:
        raise PolicyDiffersError(
            f"{len(found.changes)} of {found.requests} requests would be answered "
            "otherwise."
        )


def _print(invocation: Invocation, record: object, text: str) -> None:
    if invocation.output.json:
        invocation.output.record(record, text)
        return
    for line in text.splitlines():
        invocation.output.record(record, line)


def _rule_rows(found: PolicyExplanation) -> list[tuple[str, ...]]:
    return [
        (
            rule.name,
            rule.effect,
            rule.operation,
            "yes" if rule.holds else "no",
            ", ".join(rule.missing),
        )
        for rule in found.rules
    ]


def _change_row(change: PolicyChange) -> tuple[str, ...]:
    return (
        str(change.seq),
        change.principal,
        change.operation,
        change.key_id,
        _decided(change.before, change.before_rule, change.before_demands),
        _decided(change.after, change.after_rule, change.after_demands),
    )


def _decided(
    outcome: PolicyOutcome, rule: str, demands: tuple[ApprovalDemand, ...]
) -> str:
    asked = "".join(f"; {demand_words(demand)}" for demand in demands)
    return f"{outcome.value} ({rule}{asked})"
