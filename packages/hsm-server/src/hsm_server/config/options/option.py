# SPDX-License-Identifier: MIT
"""Option: a flag with an environment variable, given once or as a list."""

from __future__ import annotations

from typing import Any, Final

import click

from hsm_server.config.options.names import environment_name

_UNITS: Final = {"secs": "SECONDS", "days": "DAYS", "bytes": "BYTES"}
_NUMBERS: Final = (click.types.IntParamType, click.types.FloatParamType)


class ListOption(click.Option):
    """
    Option with several values: repeated or comma-separated.

    Its parameter is a tuple. White space around a value is removed.
    """

    def __init__(self, *args: Any, **attributes: Any) -> None:
        super().__init__(*args, **attributes | {"multiple": True})

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        """Split each text, then convert the parts."""
        parts = []
        for text in value or ():
            found = [part.strip() for part in text.split(",") if part.strip()]
            if not found:
                raise click.BadParameter(
                    "The list contains an empty value.", ctx=ctx, param=self
                )
            parts += found
        return super().type_cast_value(ctx, parts)


def refuse_repeated(
    command: click.Command, ctx: click.Context, args: list[str]
) -> None:
    """
    Refuse an option that is given twice, unless it is one of several values.

    Raises:
        click.UsageError: An option of one value, or a switch, is given twice.
    """
    _, _, order = command.make_parser(ctx).parse_args(list(args))
    for param in order:
        times = order.count(param)
        if isinstance(param, click.Option) and times > 1 and not param.multiple:
            raise click.UsageError(
                f"{param.get_error_hint(ctx)} is given {times} times. Pass it once.",
                ctx,
            )


def option(
    flag: str,
    text: str,
    *,
    also: str = "",
    cls: type[click.Option] = click.Option,
    **more: Any,
) -> click.Option:
    """Return the option of a flag; *also* is the flag that switches it off."""
    more.setdefault("show_default", "default" in more)
    if isinstance(more.get("type"), _NUMBERS):
        more.setdefault("metavar", _UNITS.get(flag.rpartition("-")[2], "NUMBER"))
    return cls(
        [f"--{flag}/{also}" if also else f"--{flag}"],
        help=text,
        envvar=environment_name(flag),
        show_envvar=True,
        **more,
    )
