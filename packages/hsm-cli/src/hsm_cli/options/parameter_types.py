# SPDX-License-Identifier: MIT
"""Parameter types of the command line, and options that may be repeated."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

if TYPE_CHECKING:
    # It is generic for type checkers only.
    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType


class ListOption(click.Option):
    """
    Option with several values: repeated or comma-separated.

    Its parameter is a tuple; white space around values is removed.

    Args:
        attributes: As of any option.

        may_be_empty: Whether an empty text is an empty list, and not an error.
    """

    def __init__(
        self, *args: Any, may_be_empty: bool = False, **attributes: Any
    ) -> None:
        super().__init__(*args, **attributes | {"multiple": True})
        self._may_be_empty = may_be_empty

    def type_cast_value(self, ctx: click.Context, value: Any) -> Any:
        """Split each text, then convert the parts."""
        parts = []
        for text in value or ():
            found = [part.strip() for part in text.split(",") if part.strip()]
            if not found and not self._may_be_empty:
                raise click.BadParameter("must not be empty.", ctx=ctx, param=self)
            parts += found
        return super().type_cast_value(ctx, parts)


def none_unless_given(ctx: click.Context, param: click.Parameter, value: Any) -> Any:
    """Return None for a list that was not given, to tell it from an empty one."""
    source = ctx.get_parameter_source(param.name or "")
    return None if source is ParameterSource.DEFAULT else value


class Command(click.Command):
    """Command that refuses repeated options, except `ListOption`."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """
        Read the words of the command line.

        Raises:
            click.UsageError: An option of one value, or a switch, is given twice.
        """
        if not ctx.resilient_parsing:
            _, _, order = self.make_parser(ctx).parse_args(list(args))
            for param in order:
                times = order.count(param)
                if isinstance(param, click.Option) and times > 1 and not param.multiple:
                    raise click.UsageError(
                        f"{param.get_error_hint(ctx)} was given {times} times; give it "
                        "once.",
                        ctx,
                    )
        return super().parse_args(ctx, args)


class Group(Command, click.Group):
    """Command group that refuses repeated options."""


class Instant(_ParamType):
    """Date and time with a UTC offset (RFC 3339)."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """Parse a text; a time without a UTC offset is ambiguous and refused."""
        if isinstance(value, datetime):
            return value
        try:
            found = datetime.fromisoformat(value)
        except ValueError:
            self.fail(
                f"{value!r} is not a time such as 2026-01-31T12:00:00Z.", param, ctx
            )
        if found.tzinfo is None:
            self.fail(f"{value!r} has no UTC offset such as Z or +01:00.", param, ctx)
        return found


def choice(enum: type[Enum]) -> _ParamType:
    """Return a parameter type for the values of an enum, case-insensitive."""
    return _EnumChoice(enum)


class _EnumChoice(_ParamType):
    name = "choice"

    def __init__(self, enum: type[Enum]) -> None:
        self.enum = enum

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Enum:
        """Return the member of this value."""
        if isinstance(value, Enum):
            return value
        wanted = value.lower().replace("-", "_")
        for member in self.enum:
            if wanted == str(member.value).lower().replace("-", "_"):
                return member
        known = ", ".join(str(member.value) for member in self.enum)
        self.fail(f"{value!r} is not one of {known}.", param, ctx)
