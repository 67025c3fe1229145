# SPDX-License-Identifier: MIT
"""Flags of scheduled destruction and automatic rotation."""

from __future__ import annotations

from typing import Final

import click

from hsm_server.config.options.option import option

_INTERVAL: Final = click.IntRange(60, 10 * 365 * 24 * 3600)


def key_life_options() -> list[click.Parameter]:
    """Return the flags, in the order of the help."""
    return [
        option(
            "destroy-waiting-days",
            "Minimum waiting period before a key is destroyed, in days. Until "
            "then the key is unusable and its destruction can be canceled.",
            default=0,
            type=click.IntRange(0, 3650),
        ),
        option(
            "destroy-interval-secs",
            "Interval between checks for keys due for destruction, in seconds.",
            default=3600,
            type=_INTERVAL,
        ),
        option(
            "rotation-interval-secs",
            "Interval between checks for keys due for rotation, in seconds.",
            default=3600,
            type=_INTERVAL,
        ),
    ]
