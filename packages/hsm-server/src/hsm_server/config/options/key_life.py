# SPDX-License-Identifier: MIT
"""Flags about what the server does to keys by itself."""

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
            "How long a key waits at least before it is destroyed; in this time it "
            "serves nothing, and can be given back.",
            default=0,
            type=click.IntRange(0, 3650),
        ),
        option(
            "destroy-interval-secs",
            "How often it is looked which of them are due, in seconds.",
            default=3600,
            type=_INTERVAL,
        ),
        option(
            "rotation-interval-secs",
            "How often it is looked which keys are due for rotation, in seconds.",
            default=3600,
            type=_INTERVAL,
        ),
    ]
