# SPDX-License-Identifier: MIT
"""
Writes the manual pages ``hsm-cli.1`` and ``hsm-server.8`` from the commands themselves.

Run ``python -m tests.tooling.man_pages`` after a change of a command or an option. The
usual generator (click-man) does not see the command behind ``hsm-cli``, and lets a line
of text that begins with a quote become a request to the formatter.
"""

from __future__ import annotations

from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path
from typing import Final

import click

from hsm_cli.__about__ import __version__ as cli_version
from hsm_cli.commands import cli
from hsm_server.__about__ import __version__ as server_version
from hsm_server.main import main as server
from tests.support import REPOSITORY

_PACKAGES: Final = REPOSITORY / "packages"


def pages() -> dict[Path, str]:
    """Return the pages by the place that they have in the repository."""
    client = "".join(_page(cli, "hsm-cli", 1, cli_version))
    served = "".join(_page(server, "hsm-server", 8, server_version))
    return {
        _PACKAGES / "hsm-cli" / "man" / "hsm-cli.1": client,
        _PACKAGES / "hsm-server" / "man" / "hsm-server.8": served,
    }


def _page(
    command: click.Command, name: str, section: int, version: str
) -> Iterator[str]:
    context = click.Context(command, info_name=name)
    summary = command.get_short_help_str(limit=200)
    yield f'.TH {name.upper()} {section} "" "FerroHSM {version}" "FerroHSM"\n'
    yield f".SH NAME\n{_text(name)} \\- {_text(summary)}\n"
    yield f".SH SYNOPSIS\n.B {_text(name)}\n{_usage(command, context)}\n"
    yield f".SH DESCRIPTION\n{_paragraphs(command.help)}"
    yield ".SH OPTIONS\n"
    yield from _options(command, context)
    if isinstance(command, click.Group):
        yield ".SH COMMANDS\n"
        yield from _commands(command, context)
    if command.epilog:
        yield f".SH NOTES\n{_paragraphs(command.epilog)}"


def _commands(group: click.Group, context: click.Context) -> Iterator[str]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None:
            raise LookupError(f"There is no command {name}.")
        inner = click.Context(command, parent=context, info_name=name)
        path = inner.command_path.partition(" ")[2]
        if command.hidden:
            continue
        if isinstance(command, click.Group):
            yield from _commands(command, inner)
            continue
        yield f'.SS "{_text(path)} {_usage(command, inner)}"\n'
        yield _paragraphs(command.help)
        yield from _options(command, inner)


def _usage(command: click.Command, context: click.Context) -> str:
    return _text(" ".join(command.collect_usage_pieces(context)))


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    for parameter in command.get_params(context):
        record = parameter.get_help_record(context)
        if record is None:
            continue
        names, explained = record
        yield f".TP\n.B {_text(names)}\n{_text(explained)}\n"


def _paragraphs(text: str | None) -> str:
    found = filter(None, cleandoc(text or "").split("\n\n"))
    return "".join(f".PP\n{_paragraph(part)}\n" for part in found)


def _paragraph(text: str) -> str:
    mark, *lines = text.splitlines()
    if mark != "\b":
        return _text(text)
    return "\n".join((".nf", *map(_line, lines), ".fi"))


def _text(text: str) -> str:
    """Return text of one line that means nothing else to the formatter."""
    return _line(" ".join(text.replace("\b", "").split()))


def _line(text: str) -> str:
    plain = text.replace("\\", "\\e")
    escaped = plain.replace("-", "\\-").replace('"', "\\(dq").replace("'", "\\(aq")
    return f"\\&{escaped}" if escaped.startswith(".") else escaped


def main() -> None:
    """Write the pages."""
    for path, page in pages().items():
        path.parent.mkdir(exist_ok=True)
        path.write_text(page, "utf-8")


if __name__ == "__main__":
    main()
