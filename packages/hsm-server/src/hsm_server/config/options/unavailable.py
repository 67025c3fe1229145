# SPDX-License-Identifier: MIT
"""Flags of the original FerroHSM that are not available and rejected."""

from __future__ import annotations

from typing import Final

import click
from click.core import ParameterSource

from hsm_server.config.options.names import environment_name

UNAVAILABLE: Final = {
    "checkpoint-interval-secs": (
        "the audit log is not verified on a schedule; use `hsm-cli audit verify`"
    ),
    "key-rotation-interval-secs": (
        "the key of the audit log does not rotate; use `hsm-cli set-rotation` "
        "to rotate keys"
    ),
    "web-dir": "the console is part of the program",
}
"""Rejected flags, with the reason."""


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
    flag = option.opts[0]
    why = UNAVAILABLE[flag.removeprefix("--")]
    if source is ParameterSource.COMMANDLINE:
        raise click.UsageError(f"{flag} is not available in this version: {why}.")
    if source is ParameterSource.ENVIRONMENT:
        raise click.UsageError(
            f"{option.envvar} ({flag}) is not available in this version: {why}. "
            "Unset it."
        )
