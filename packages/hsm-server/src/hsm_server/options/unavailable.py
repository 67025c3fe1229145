# SPDX-License-Identifier: MIT
"""What is known from the original and not there yet: refused, never ignored."""

from __future__ import annotations

from typing import Final

import click
from click.core import ParameterSource

from hsm_server.options.names import environment_name

__all__ = ["UNAVAILABLE", "unavailable"]

UNAVAILABLE: Final = (
    "checkpoint-interval-secs",
    "key-rotation-interval-secs",
    "web-dir",
)
"""Flags whose feature is not there yet."""


def unavailable(flag: str) -> click.Option:
    """Return a hidden option that is refused wherever it is given."""
    return click.Option(
        [f"--{flag}"],
        envvar=environment_name(flag),
        hidden=True,
        expose_value=False,
        callback=_refuse,
        metavar="TEXT",
    )


def _refuse(context: click.Context, option: click.Parameter, value: object) -> None:
    source = context.get_parameter_source(str(option.name))
    if source is ParameterSource.COMMANDLINE:
        raise click.UsageError(f"{option.opts[0]} is not available in this version.")
    if source is ParameterSource.ENVIRONMENT:
        raise click.UsageError(
            f"{option.envvar} ({option.opts[0]}) is not available in this version; "
            "unset it."
        )
