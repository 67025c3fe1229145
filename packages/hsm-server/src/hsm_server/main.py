# SPDX-License-Identifier: MIT
"""Command ``hsm-server``: a group whose command, if none is named, is ``serve``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

import click

from hsm_server.__about__ import __version__
from hsm_server.config.exit_codes import ExitCode
from hsm_server.config.options import refuse_repeated
from hsm_server.system.standard_streams import drop_unwritable, open_closed_output, say
from hsm_server.text import escaped

_HELP = """
FerroHSM server: an HSM as an HTTPS service.

Try it with 'hsm-server --dev'. Create a permanent HSM with 'hsm-server init DIRECTORY'.
Without a command, options apply to 'serve'.
"""
_OWN: Final = ("--help", "-h", "--version")


def _init() -> click.Command:
    from hsm_server.init.command import init

    return init


def _serve() -> click.Command:
    from hsm_server.commands.serve import serve

    return serve


def _check() -> click.Command:
    from hsm_server.commands.check import check

    return check


def _config() -> click.Command:
    from hsm_server.commands.config import config

    return config


COMMANDS: Final[Mapping[str, Callable[[], click.Command]]] = {
    "init": _init,
    "serve": _serve,
    "check": _check,
    "config": _config,
}
"""Import of each command, in the order of the help."""


class ServerGroup(click.Group):
    """Group that imports a command when it is run."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command."""
        if cmd_name not in COMMANDS:
            return None
        return COMMANDS[cmd_name]()

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Add the command that is meant where none is named."""
        if not args or (args[0].startswith("-") and args[0] not in _OWN):
            args = ["serve", *args]
        if not ctx.resilient_parsing:
            refuse_repeated(self, ctx, args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; no argument in its usage error controls the terminal."""
        try:
            return super().invoke(ctx)
        except click.UsageError as error:
            vars(error)["message"] = escaped(error.message)
            raise

    def main(self, *args: Any, **options: Any) -> Any:
        """Run a command, and tell in one line if its output can't be written."""
        open_closed_output()
        try:
            return super().main(*args, **options)
        except OSError as error:
            if error.filename is not None:
                raise
            say(f"error: Can't write the result: {error.strerror}.")
            raise SystemExit(ExitCode.FAILED) from None
        finally:
            drop_unwritable(sys.stdout)


main = ServerGroup(
    "hsm-server",
    help=_HELP,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 88},
)
click.version_option(__version__, prog_name="hsm-server")(main)
