# SPDX-License-Identifier: MIT
"""Agreement of help, commands and reference page."""

import re
from pathlib import Path

import click
import pytest

import hsm_cli
from hsm_cli.commands import COMMANDS, cli
from hsm_core.operations import OPERATIONS
from tests.cli.reference import PAGE, render
from tests.cli.support import Shell

BY_SESSION = {"TestPolicy"}
"""Operations that a command leaves to a `Session`, which pages for it."""


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
    folder = Path(hsm_cli.__file__).parent / "commands"
    source = "".join(path.read_text() for path in folder.rglob("*.py"))
    words = set(re.findall(r"\w+", source))

    assert BY_SESSION == {cls.__name__ for cls in OPERATIONS} - words


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
