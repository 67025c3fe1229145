# SPDX-License-Identifier: MIT
"""Commands that list, show and edit keys."""

from __future__ import annotations

from typing import Any

import click

from hsm_cli.invocation import Invocation
from hsm_cli.io.results import KEY_COLUMNS, VERSION_COLUMNS, counted, key_pairs
from hsm_cli.options import ListOption, choice, none_unless_given
from hsm_cli.parameters import HSMCommand, change_command, key_operand
from hsm_core.model import KeyState
from hsm_core.operations.keys import DescribeKey, ListKeys, ListVersions, UpdateKey


@click.command("list", cls=HSMCommand)
@click.option(
    "--page",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Page number.",
)
@click.option(
    "--per-page",
    type=click.IntRange(1, 1000),
    default=50,
    show_default=True,
    metavar="N",
    help="Keys per page.",
)
@click.option(
    "--cursor",
    default="",
    metavar="TEXT",
    help="Cursor of the next page, from the previous output; replaces --page.",
)
@click.option(
    "--algorithm", default="", metavar="NAME", help="Only keys of this algorithm."
)
@click.option(
    "--state",
    type=choice(KeyState),
    metavar="STATE",
    help="Only keys whose current version is in this state. Default: all but "
    "destroyed keys.",
)
@click.option(
    "--tags",
    cls=ListOption,
    may_be_empty=True,
    metavar="TAGS",
    help="Only keys with all of these tags; repeatable or comma-separated.",
)
@click.option(
    "--search",
    default="",
    metavar="TEXT",
    help="Only keys whose ID starts with this text, or whose name, owner or a tag "
    "contains it.",
)
@click.pass_obj
def list_keys(invocation: Invocation, /, **filters: Any) -> None:
    """List keys, newest first."""
    found = invocation.execute(ListKeys(**filters))
    pages = max(1, -(-found.total // found.per_page))
    where = f"page {found.page} of {pages}" if found.page else "page by cursor"
    more = f"; next: --cursor {found.next_cursor}" if found.next_cursor else ""
    invocation.output.table(
        found,
        found.items,
        KEY_COLUMNS,
        f"{where}, {counted(found.total, 'key')} in total{more}",
    )


@click.command("describe", cls=HSMCommand)
@key_operand
@click.pass_obj
def describe(invocation: Invocation, key_id: str) -> None:
    """Show a key's metadata, after an integrity check of its stored data."""
    key = invocation.execute(DescribeKey(key_id=key_id))
    invocation.output.pairs(key, key_pairs(key))


@click.command("versions", cls=HSMCommand)
@key_operand
@click.pass_obj
def versions(invocation: Invocation, key_id: str) -> None:
    """List all versions of a key, oldest first."""
    found = invocation.execute(ListVersions(key_id=key_id))
    invocation.output.table(found, found.items, VERSION_COLUMNS)


@change_command(
    "edit",
    UpdateKey,
    click.option(
        "--name", metavar="NAME", help="New unique name; empty removes the name."
    ),
    click.option("--description", metavar="TEXT", help="New description."),
    click.option("--owner", metavar="NAME", help="New owner."),
    click.option(
        "--tags",
        cls=ListOption,
        may_be_empty=True,
        callback=none_unless_given,
        metavar="TAGS",
        help="New tags, which replace all others; repeatable or comma-separated. Empty "
        "removes all tags.",
    ),
)
def edit() -> None:
    """Edit a key's name, description, owner or tags. Other fields stay unchanged."""
