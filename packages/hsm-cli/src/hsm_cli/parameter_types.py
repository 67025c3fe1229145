# SPDX-License-Identifier: MIT
"""Types of parameters: what a word of the command line stands for."""

from __future__ import annotations

from datetime import datetime
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

import click

__all__ = ["CommaList", "Instant", "choice", "parse_choice"]

E = TypeVar("E", bound=Enum)

if TYPE_CHECKING:
    # It is generic for type checkers only.
    _ParamType = click.ParamType[Any]
else:
    _ParamType = click.ParamType


class CommaList(_ParamType):
    """Words with commas between them, as a tuple; white space around words goes."""

    name = "words"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Split a text; a tuple, such as a default, is taken as it is."""
        if isinstance(value, tuple):
            return value
        return tuple(word.strip() for word in value.split(",") if word.strip())


class Instant(_ParamType):
    """A date and time with an offset from UTC (RFC 3339)."""

    name = "time"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        """Read a text; without an offset nobody knows which instant is meant."""
        if isinstance(value, datetime):
            return value
        try:
            found = datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is no time such as 2026-01-31T12:00:00Z.", param, ctx)
        if found.tzinfo is None:
            self.fail(
                f"{value!r} has no offset from UTC, such as Z or +01:00.", param, ctx
            )
        return found


def parse_choice(enum: type[E], word: str) -> E:
    """
    Return the member of an enum that a word stands for, in any case.

    Raises:
        click.BadParameter: There is none; the message lists those that are.
    """
    wanted = word.lower().replace("-", "_")
    for member in enum:
        if wanted == str(member.value).lower().replace("-", "_"):
            return member
    known = ", ".join(str(member.value) for member in enum)
    raise click.BadParameter(f"{word!r} is none of {known}.")


def choice(enum: type[Enum]) -> _ParamType:
    """Return a parameter type that takes the values of an enum, in any case."""
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
        try:
            return parse_choice(self.enum, value)
        except click.BadParameter as error:
            self.fail(error.message, param, ctx)
