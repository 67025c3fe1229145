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
    help="Number of the page.",
)
@click.option(
    "--per-page",
    type=click.IntRange(1, 1000),
    default=50,
    show_default=True,
    metavar="N",
    help="Keys on a page.",
)
@click.option(
    "--cursor",
    default="",
    metavar="TEXT",
    help="Where a page named as the next one begins; in place of --page.",
)
@click.option("--algorithm", default="", metavar="NAME", help="Only this algorithm.")
@click.option(
    "--state",
    type=choice(KeyState),
    metavar="STATE",
    help="Only keys whose current version is in this state. Without it, destroyed "
    "keys are left out.",
)
@click.option(
    "--tags",
    cls=ListOption,
    may_be_empty=True,
    metavar="TAGS",
    help="Only keys with all of these tags; repeatable, or with commas between.",
)
@click.option(
    "--search",
    default="",
    metavar="TEXT",
    help="Only keys whose id begins with this, or whose name or owner or a tag of "
    "which has it anywhere.",
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
    """Show keys, newest first."""
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
    where = f"page {found.page} of {pages}" if found.page else "a page by cursor"
    more = f"; next: --cursor {found.next_cursor}" if found.next_cursor else ""
    invocation.output.table(
        found,
        KEY_HEADER,
        [key_row(key) for key in found.items],
        f"{where}, {found.total} keys in all{more}",
    )
