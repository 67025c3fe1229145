# SPDX-License-Identifier: MIT
"""Agreement of help, commands and reference page."""

import re
from pathlib import Path

import click
import pytest

import hsm_cli
from hsm_cli.commands import DAILY, SPELLINGS, cli
from hsm_core.operations import OPERATIONS
from tests.cli.reference import PAGE, render
from tests.cli.support import Shell

BY_SESSION = {"TestPolicy"}
"""Operations that a command leaves to a `Session`, which pages for it."""

BY_INTERFACE = {"DecryptPKCS1", "RawSign", "RawVerify"}
"""Operations for programs of others, which have no command."""

HIDDEN = {("operator", "store", "back-up")}
"""Former names of commands inside groups."""


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
        elif name != "help":
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

    assert BY_SESSION | BY_INTERFACE == {cls.__name__ for cls in OPERATIONS} - words


@pytest.mark.parametrize("name", cli.listing)
def test_name_and_help(name: str) -> None:
    """A command is loaded under its name, and its help begins as the list says."""
    command = cli.get_command(click.Context(cli), name)

    assert command is not None
    assert command.help
    assert name == command.name
    assert cli.listing[name][1].split()[0] == command.help.split()[0]


class TestHelp:
    def test_short(self, bare_shell: Shell) -> None:
        """The help is one screen of daily commands that points to the rest."""
        outcome = bare_shell.ok("--help")
        named = {line.split()[0] for line in outcome.lines if line[:2] == "  "}

        assert len(outcome.lines) <= 24
        assert max(map(len, outcome.lines)) <= 80
        assert len(DAILY) <= 12
        assert set(DAILY) <= named
        assert "hsm-cli help all" in outcome.text
        assert outcome == bare_shell.ok() == bare_shell.ok("help")

    def test_all(self, bare_shell: Shell) -> None:
        """The complete help lists every command, and the former names apart."""
        text = bare_shell.ok("help", "all").text
        current, _, former = text.partition("Former names:")

        assert all(f"\n  {name} " in current for name in cli.listing)
        assert all(f"\n  {name} " in former for name in SPELLINGS)

    def test_one_command(self, bare_shell: Shell) -> None:
        """The help of a command is the same in both ways."""
        for words in (["sign"], ["approvals"], ["approvals", "deny"], ["update"]):
            asked = bare_shell.ok("help", *words)

            assert bare_shell.ok(*words, "--help").text.rstrip() == asked.text.rstrip()

    def test_no_such_command(self, bare_shell: Shell) -> None:
        """A command that is not there is a usage error here too."""
        for words, told in (
            (["frob"], "No such command: frob."),
            (["audit", "vrify"], "Did you mean verify?"),
            (["sign", "verify"], "sign has no subcommands."),
        ):
            outcome = bare_shell("help", *words)

            assert (2, b"") == (outcome.code, outcome.out)
            assert told in outcome.err


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["lst"], "Did you mean list?"),
        (["verfy"], "Did you mean verify or verify-mac?"),
        (["DESCRIBE"], "Did you mean describe?"),
        (["deny"], "Did you mean approvals deny?"),
        (["bakcup"], "Did you mean operator backup?"),
        (["approvals", "aprove"], "Did you mean approve?"),
        (["list", "--sate", "active"], "--state"),
    ],
    ids=str,
)
def test_did_you_mean(bare_shell: Shell, words: list[str], meant: str) -> None:
    """A mistyped command or option is refused, with the likely one."""
    outcome = bare_shell(*words)

    assert (2, b"") == (outcome.code, outcome.out)
    assert meant in outcome.err


def options(command: click.Command) -> set[str]:
    """Return the options of a command."""
    found = (param for param in command.params if isinstance(param, click.Option))
    return {name for param in found for name in param.opts}


@pytest.mark.parametrize("name", SPELLINGS)
def test_former_names(name: str) -> None:
    """A former name takes no option that the new ones don't."""
    context = click.Context(cli)
    former = cli.get_command(context, name)
    known: set[str] = set()
    for words in SPELLINGS[name][1].split(", "):
        command: click.Command | None = cli
        for word in words.partition(" --")[0].split():
            assert isinstance(command, click.Group)
            command = command.get_command(context, word)
        assert command is not None
        known |= options(command)

    assert former is not None
    assert options(former) <= known | {"--off"}


@pytest.mark.parametrize("words", leaves(), ids=" ".join)
def test_help_of_every_command(bare_shell: Shell, words: tuple[str, ...]) -> None:
    """Every command explains itself, takes --json, and is on the page."""
    outcome = bare_shell.ok(*words, "--help")
    usage = re.sub(r"\s+", " ", outcome.text.partition("\n\n")[0])

    assert "--json" in outcome.text
    assert usage.startswith(f"Usage: hsm-cli {' '.join(words)}")
    is_there = f"\n`{usage.removeprefix('Usage: ')}`\n" in PAGE.read_text("utf-8")
    assert is_there is (words not in HIDDEN)
    assert "\\b" not in outcome.text


def test_unknown_commands(bare_shell: Shell) -> None:
    """A command that is not there, or none in a group, is a usage error."""
    for words in (["frob"], ["audit"], ["token"], ["audit", "frob"], ["--frob"]):
        outcome = bare_shell(*words)

        assert (2, b"") == (outcome.code, outcome.out)
        assert "--help" in outcome.err
