# SPDX-License-Identifier: MIT
"""Agreement of help, commands and reference page."""

import click
import pytest

from hsm_cli.commands import COMMANDS, cli
from hsm_core.operations import OPERATIONS
from tests.cli.reference import PAGE, render
from tests.cli.support import Shell

BY_OPERATION = {
    "CreateKey": "create",
    "ImportKey": "import",
    "DeriveKey": "derive",
    "ExportKey": "export",
    "DescribeKey": "describe",
    "ListKeys": "list",
    "ListVersions": "versions",
    "RotateKey": "rotate",
    "Rollback": "rollback",
    "RevokeKey": "revoke",
    "DestroyKey": "destroy",
    "GetPublicKey": "public-key",
    "Sign": "sign",
    "Verify": "verify",
    "Encrypt": "encrypt",
    "Decrypt": "decrypt",
    "Encapsulate": "encapsulate",
    "Decapsulate": "decapsulate",
    "Seal": "seal",
    "Open": "open",
    "Rewrap": "rewrap",
    "GenerateDataKey": "data-key",
    "ComputeMac": "mac",
    "VerifyMac": "verify-mac",
    "SignBatch": "sign",
    "VerifyBatch": "verify",
    "EncryptBatch": "encrypt",
    "DecryptBatch": "decrypt",
    "ComputeMacBatch": "mac",
    "VerifyMacBatch": "verify-mac",
    "GenerateRandom": "random",
    "ListAuditEvents": "audit",
    "VerifyAudit": "audit",
    "Status": "status",
    "ListAlgorithms": "algorithms",
    "VerifyStore": "store",
    "BackUpStores": "store",
    "RecoverStore": "store",
    "RecoverKey": "store",
    "SelfTest": "selftest",
    "ShowPolicy": "policy",
    "ExplainPolicy": "policy",
    "TestPolicy": "policy",
    "ActivateKey": "activate",
    "SuspendKey": "suspend",
    "ResumeKey": "resume",
    "UpdateKey": "update",
    "SetRotation": "set-rotation",
    "CancelDestroy": "cancel-destroy",
    "ListApprovals": "approvals",
    "GetApproval": "approvals",
    "Approve": "approvals",
    "Deny": "approvals",
    "Withdraw": "approvals",
    "CancelApproval": "approvals",
    "ExtendRetention": "retention",
    "HoldKey": "retention",
    "ReleaseKey": "retention",
    "RetentionStatus": "retention",
    "BeginLedger": "retention",
}


def leaves(
    group: click.Group = cli, path: tuple[str, ...] = ()
) -> list[tuple[str, ...]]:
    """Return the words of every command that does something."""
    context = click.Context(group)
    found = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            found += leaves(command, (*path, name))
        else:
            found.append((*path, name))
    return found


def test_page() -> None:
    """The reference page is generated from the commands."""
    assert render() == PAGE.read_text(encoding="utf-8")


def test_every_operation_has_a_command() -> None:
    """There is a command for every operation."""
    assert {cls.__name__ for cls in OPERATIONS} == BY_OPERATION.keys()
    assert set(BY_OPERATION.values()) <= COMMANDS.keys()


@pytest.mark.parametrize("name", COMMANDS)
def test_name_and_help(name: str) -> None:
    """A command is loaded under its name, and its help begins as the list says."""
    command = cli.get_command(click.Context(cli), name)

    assert command is not None
    assert command.help
    assert name == command.name
    assert COMMANDS[name].split()[0] == command.help.split()[0]


@pytest.mark.parametrize("words", leaves(), ids=" ".join)
def test_help_of_every_command(bare_shell: Shell, words: tuple[str, ...]) -> None:
    """Every command explains itself, takes --json, and documents each option."""
    outcome = bare_shell.ok(*words, "--help")

    assert "--json" in outcome.text
    assert f"Usage: hsm-cli {' '.join(words)}" in outcome.text


def test_unknown_commands(bare_shell: Shell) -> None:
    """A command that is not there, or none in a group, is a usage error."""
    for words in (["frob"], ["audit"], ["token"], ["audit", "frob"], ["--frob"]):
        outcome = bare_shell(*words)

        assert (2, b"") == (outcome.code, outcome.out)
        assert "--help" in outcome.err
