# SPDX-License-Identifier: MIT
"""Options of the commands ``create``, ``import`` and ``derive``."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Final, TypedDict

import click

from hsm_cli.actions.options import idempotency_option
from hsm_cli.options.parameter_types import ListOption, choice
from hsm_core.algorithms import KeyUsage


class NewKey(TypedDict):
    """Metadata of a new key, under the field names of the operations."""

    name: str
    owner: str
    description: str
    usages: tuple[KeyUsage, ...]
    tags: tuple[str, ...]
    exportable: bool


def new_key_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of new keys; a command gets *facts* and *idempotency_key*."""

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
        help="Allow wrapped export. Can't be changed later.",
    ),
    click.option(
        "--tags",
        cls=ListOption,
        may_be_empty=True,
        metavar="TAGS",
        help="Tags for searches; repeatable or comma-separated.",
    ),
    click.option(
        "--usage",
        "usages",
        cls=ListOption,
        type=choice(KeyUsage),
        metavar="USAGES",
        help="Allowed usages, such as sign,verify; repeatable or comma-separated. "
        "Default: those of the algorithm.",
    ),
    click.option("--description", default="", metavar="TEXT", help="Description."),
    click.option(
        "--owner", default="", metavar="NAME", help="Owner. Default: the caller."
    ),
    click.option("--name", default="", metavar="NAME", help="Unique name."),
)
