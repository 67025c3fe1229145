# SPDX-License-Identifier: MIT
"""What the commands that make a key share: ``create``, ``import`` and ``derive``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final, TypedDict

import click

from hsm_cli.actions.options import idempotency_option
from hsm_cli.options.parameter_types import ListOption, choice
from hsm_core.algorithms import KeyUsage


class NewKey(TypedDict):
    """Facts of a new key, as the operations that make one name them."""

    name: str
    owner: str
    description: str
    usages: tuple[KeyUsage, ...]
    tags: tuple[str, ...]
    exportable: bool


def new_key_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command its *facts*, which are `NewKey`, and *idempotency_key*."""

    @functools.wraps(function)
    def wrapper(
        *args: Any,
        name: str,
        owner: str,
        description: str,
        usages: tuple[KeyUsage, ...],
        tags: tuple[str, ...],
        exportable: bool,
        **kwargs: Any,
    ) -> Any:
        facts = NewKey(
            name=name,
            owner=owner,
            description=description,
            usages=usages,
            tags=tags,
            exportable=exportable,
        )
        return function(*args, facts=facts, **kwargs)

    decorated: Callable[..., Any] = idempotency_option(wrapper)
    for option in _OPTIONS:
        decorated = option(decorated)
    return decorated


_OPTIONS: Final = (
    click.option(
        "--exportable",
        is_flag=True,
        help="Let it leave the HSM, wrapped. It can't be changed later.",
    ),
    click.option(
        "--tags",
        cls=ListOption,
        may_be_empty=True,
        metavar="TAGS",
        help="Words to find it by; repeatable, or with commas between.",
    ),
    click.option(
        "--usage",
        "usages",
        cls=ListOption,
        type=choice(KeyUsage),
        metavar="USAGES",
        help="What it may be used for, such as sign,verify; repeatable, or with commas "
        "between; else the algorithm's usual.",
    ),
    click.option("--description", default="", metavar="TEXT", help="What it is for."),
    click.option("--owner", default="", metavar="NAME", help="Else it is the caller."),
    click.option("--name", default="", metavar="NAME", help="A unique name."),
)
