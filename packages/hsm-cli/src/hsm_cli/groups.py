# SPDX-License-Identifier: MIT
"""Command groups that import their commands late, and the help of the program."""

from __future__ import annotations

# Imports only modules of this package, whose imports the contracts check.
from importlib import import_module  # noqa: TID251
from typing import Any, Final, TypeAlias

import click

from hsm_cli.options import Group

Listing: TypeAlias = dict[str, tuple[str, str]]
"""Commands by name: module and function below `hsm_cli.commands`, short help."""

_PACKAGE: Final = "hsm_cli.commands"


class LazyGroup(Group):
    """
    Command group that imports a command when it is first used.

    Args:
        listing: Its commands, in the order of the help.

        spellings: Former names of commands, with the new ones in place of the help.
            They work, and the help lists them apart.
    """

    def __init__(
        self,
        *args: Any,
        listing: Listing,
        spellings: Listing | None = None,
        **attributes: Any,
    ) -> None:
        super().__init__(*args, **attributes)
        self.listing = listing
        self.spellings = spellings or {}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, without their other spellings."""
        return list(self.listing)

    def list_spellings(self) -> list[str]:
        """Return the other names of commands."""
        return list(self.spellings)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return a command, or None if no command has this name."""
        entry = self.listing.get(cmd_name) or self.spellings.get(cmd_name)
        if entry is None:
            return None
        module, _, function = entry[0].partition(".")
        found: click.Command = getattr(import_module(f"{_PACKAGE}.{module}"), function)
        return found

    def format_commands(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        """Write the list of commands from the table, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(_rows(self.listing))


class Program(LazyGroup):
    """
    The whole program: its help is one screen, and ``help all`` is complete.

    Args:
        sections: Commands by section of the complete help.

        daily: Names of the commands in the short help.
    """

    def __init__(
        self,
        *args: Any,
        sections: dict[str, Listing],
        daily: tuple[str, ...],
        **attributes: Any,
    ) -> None:
        listing = {
            name: entry for rows in sections.values() for name, entry in rows.items()
        }
        super().__init__(*args, listing=listing, **attributes)
        self._sections = sections
        self._daily = daily

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the short help."""
        self.format_usage(ctx, formatter)
        self.format_help_text(ctx, formatter)
        with formatter.section("Daily commands"):
            formatter.write_dl(
                _rows({name: self.listing[name] for name in self._daily})
            )
        formatter.write_paragraph()
        formatter.write_text(
            "All commands and options: hsm-cli help all. One command: hsm-cli help "
            "COMMAND."
        )

    def full_help(self, ctx: click.Context) -> str:
        """Return the help with all commands, options and other spellings."""
        formatter = ctx.make_formatter()
        super().format_help(ctx, formatter)
        return formatter.getvalue().rstrip("\n")

    def format_commands(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        """Write the lists of all commands."""
        for title, rows in self._sections.items():
            with formatter.section(title):
                formatter.write_dl(_rows(rows))
        with formatter.section("Former names"):
            formatter.write_dl(_rows(self.spellings))


def _rows(listing: Listing) -> list[tuple[str, str]]:
    return [(name, text) for name, (_, text) in listing.items()]
