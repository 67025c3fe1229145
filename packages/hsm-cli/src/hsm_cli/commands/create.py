# SPDX-License-Identifier: MIT
"""The command ``create``."""

from __future__ import annotations

import click

from hsm_cli.invocation import Invocation
from hsm_cli.options import (
    CommaList,
    HSMCommand,
    idempotency_option,
    one_of,
    parse_choice,
)
from hsm_cli.views import key_pairs
from hsm_core.algorithms import KeyUsage
from hsm_core.operations import CreateKey

__all__ = ["command"]


@click.command("create", cls=HSMCommand)
@click.argument("algorithm", required=False, metavar="[ALGORITHM]")
@click.option(
    "--algorithm",
    "algorithm_option",
    metavar="NAME",
    help="The same; see the command algorithms for names.",
)
@click.option("--name", default="", metavar="NAME", help="A unique name.")
@click.option("--owner", default="", metavar="NAME", help="Else it is the caller.")
@click.option("--description", default="", metavar="TEXT", help="What it is for.")
@click.option(
    "--usage",
    "usages",
    type=CommaList(),
    default=(),
    metavar="USAGES",
    help="What it may be used for, such as sign,verify; else the algorithm's usual.",
)
@click.option(
    "--tags",
    type=CommaList(),
    default=(),
    metavar="TAGS",
    help="Words to find it by, with commas between.",
)
@idempotency_option
@click.pass_obj
def command(
    invocation: Invocation,
    algorithm: str | None,
    algorithm_option: str | None,
    name: str,
    owner: str,
    description: str,
    usages: tuple[str, ...],
    tags: tuple[str, ...],
    idempotency_key: str | None,
) -> None:
    """Make a key. Its first version is active at once."""
    operation = CreateKey(
        algorithm=one_of(
            algorithm, algorithm_option, name="ALGORITHM", flag="--algorithm"
        ),
        name=name,
        owner=owner,
        description=description,
        usages=tuple(parse_choice(KeyUsage, word) for word in usages),
        tags=tags,
    )
    key = invocation.execute(operation, idempotency_key=idempotency_key)
    invocation.output.pairs(key, key_pairs(key))
