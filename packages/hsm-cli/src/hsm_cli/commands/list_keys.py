# SPDX-License-Identifier: MIT
"""The command ``list``."""

from __future__ import annotations

import click

from hsm_cli.actions.options import HSMCommand
from hsm_cli.invocation import Invocation
from hsm_cli.io.views import KEY_HEADER, key_row
from hsm_cli.options.parameter_types import ListOption, choice
from hsm_core.model import KeyState
from hsm_core.operations import ListKeys


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
def command(
    invocation: Invocation,
    page: int,
    per_page: int,
    cursor: str,
    algorithm: str,
    state: KeyState | None,
    tags: tuple[str, ...],
    search: str,
) -> None:
    """List keys, newest first."""
    found = invocation.execute(
        ListKeys(
            page=page,
            per_page=per_page,
            cursor=cursor,
            algorithm=algorithm,
            state=state,
            tags=tags,
            search=search,
        )
    )
    pages = max(1, -(-found.total // found.per_page))
    where = f"page {found.page} of {pages}" if found.page else "page by cursor"
    more = f"; next: --cursor {found.next_cursor}" if found.next_cursor else ""
    invocation.output.table(
        found,
        KEY_HEADER,
        [key_row(key) for key in found.items],
        f"{where}, {found.total} keys in total{more}",
    )
