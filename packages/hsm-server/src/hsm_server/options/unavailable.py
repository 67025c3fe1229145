# SPDX-License-Identifier: MIT
"""What is known from the original and not there yet: refused, never ignored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import click
from click.core import ParameterSource

from hsm_server.options.names import environment_name

__all__ = ["UNAVAILABLE", "Callback", "only", "unavailable"]

UNAVAILABLE: Final = (
    "acme-cache-dir",
    "acme-contact",
    "acme-directory-url",
    "acme-domain",
    "acme-use-production",
    "checkpoint-interval-secs",
    "key-rotation-interval-secs",
    "list-cache-ttl-secs",
    "rate-limit-burst",
    "rate-limit-per-second",
    "web-dir",
)
"""Flags whose feature is not there yet."""

_SWITCHES: Final = frozenset({"acme-use-production"})

Callback = Callable[[click.Context, click.Parameter, Any], Any]
"""What click calls with a value."""


def unavailable(flag: str) -> click.Option:
    """Return a hidden option that is refused wherever it is given."""
    switch: dict[str, Any] = {"is_flag": True} if flag in _SWITCHES else {}
    return click.Option(
        [f"--{flag}"],
        envvar=environment_name(flag),
        hidden=True,
        expose_value=False,
        callback=_refuse,
        metavar="TEXT",
        **switch,
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


def only(*available: str) -> Callback:
    """Return a check that refuses values whose feature is not there yet."""

    def check(context: click.Context, option: click.Parameter, value: str) -> str:
        if value not in available:
            raise click.UsageError(
                f"{option.opts[0]} {value} is not available in this version; there "
                f"is {' and '.join(available)}."
            )
        return value

    return check
