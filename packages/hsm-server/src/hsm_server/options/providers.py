# SPDX-License-Identifier: MIT
"""How the command line says which provider serves an algorithm."""

from __future__ import annotations

import click

__all__ = ["parse_orders"]


def parse_orders(
    context: click.Context, option: click.Parameter, value: tuple[str, ...]
) -> dict[str, tuple[str, ...]]:
    """
    Return the names of providers by name of algorithm.

    Each text is ``ALGORITHM=NAME[,NAME…]``: who may serve it, the first first. What
    the names stand for is checked when the HSM is opened.

    Raises:
        BadParameter: A text is of another form, or an algorithm stands twice.
    """
    orders: dict[str, tuple[str, ...]] = {}
    for text in value:
        algorithm, _, names = text.partition("=")
        algorithm = algorithm.strip()
        order = tuple(name.strip() for name in names.split(","))
        if not algorithm or not all(order):
            raise click.BadParameter("must be ALGORITHM=NAME, or ALGORITHM=NAME,NAME.")
        if algorithm in orders:
            raise click.BadParameter(f"names {algorithm} twice.")
        orders[algorithm] = order
    return orders
