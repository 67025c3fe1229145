# SPDX-License-Identifier: MIT
"""Parser of provider preferences."""

from __future__ import annotations

import click


def parse_orders(
    context: click.Context, option: click.Parameter, value: tuple[str, ...]
) -> dict[str, tuple[str, ...]]:
    """
    Return the names of providers by name of algorithm.

    Each text is ``ALGORITHM=NAME[,NAME…]``: who may serve it, the first first; it may
    go on with the next algorithm after a comma. What the names stand for is checked
    when the HSM is opened.

    Raises:
        BadParameter: A text is of another form, or an algorithm stands twice.
    """
    orders: dict[str, tuple[str, ...]] = {}
    for text in value:
        algorithm = ""
        for part in text.split(","):
            before, begins, after = part.rpartition("=")
            name = after.strip()
            algorithm = before.strip() if begins else algorithm
            if not algorithm or not name:
                raise click.BadParameter(
                    "must be ALGORITHM=NAME or ALGORITHM=NAME,NAME."
                )
            if begins and algorithm in orders:
                raise click.BadParameter(f"lists {algorithm} twice.")
            orders[algorithm] = (*orders.get(algorithm, ()), name)
    return orders
