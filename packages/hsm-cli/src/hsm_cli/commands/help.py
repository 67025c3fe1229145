# SPDX-License-Identifier: MIT
"""Command ``help``."""

from __future__ import annotations

import click

from hsm_cli.groups import Program
from hsm_cli.invocation import Invocation
from hsm_cli.options import Command

_ALL = "all"


@click.command("help", cls=Command)
@click.argument("words", nargs=-1, metavar="[all | COMMAND...]")
@click.pass_context
def help_command(ctx: click.Context, words: tuple[str, ...]) -> None:
    """
    Show the help of a command.

    `help all` lists every command and every global option.
    """
    invocation: Invocation = ctx.obj
    root = ctx.find_root()
    if words == (_ALL,) and isinstance(root.command, Program):
        invocation.output.line(root.command.full_help(root))
        return
    at = root
    for number, word in enumerate(words):
        if not isinstance(at.command, click.Group):
            path = " ".join(words[:number])
            raise click.UsageError(f"{path} has no subcommands.", at)
        _, command, _ = at.command.resolve_command(at, [word])
        if command is not None:
            at = click.Context(command, parent=at, info_name=word)
    invocation.output.line(at.get_help())
