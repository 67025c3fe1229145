# SPDX-License-Identifier: MIT
"""One option: a flag that is an environment variable too."""

from __future__ import annotations

from typing import Any, Final

import click

from hsm_server.options.names import environment_name

__all__ = ["option"]

_UNITS: Final = {"secs": "SECONDS", "days": "DAYS", "bytes": "BYTES"}
_NUMBERS: Final = (click.types.IntParamType, click.types.FloatParamType)


def option(flag: str, text: str, *, also: str = "", **more: Any) -> click.Option:
    """Return the option of a flag; *also* is the flag that switches it off."""
    more.setdefault("show_default", "default" in more)
    if isinstance(more.get("type"), _NUMBERS):
        more.setdefault("metavar", _UNITS.get(flag.rpartition("-")[2], "NUMBER"))
    return click.Option(
        [f"--{flag}/{also}" if also else f"--{flag}"],
        help=text,
        envvar=environment_name(flag),
        show_envvar=True,
        **more,
    )
