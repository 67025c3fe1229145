# SPDX-License-Identifier: MIT
"""
Arguments that name something of the tables, or hold bytes.

Later code compares enumeration members by identity, where text of the same value would
be taken for another member; so here it becomes the member, or is refused.
"""

from __future__ import annotations

from contextlib import suppress
from enum import StrEnum
from typing import TypeVar

from hsm_core.errors import InvalidInputError

E = TypeVar("E", bound=StrEnum)


def member(kind: type[E], value: E, field: str) -> E:
    """
    Return the member of an enumeration that *value* is, or is the text of.

    Raises:
        InvalidInputError: There is none.
    """
    with suppress(ValueError):
        return kind(value)
    # Raised here, the error brings no other that repeats the value: it may be a key.
    raise InvalidInputError(f"{field} must be one of {', '.join(kind)}.", field=field)


def member_or_none(kind: type[E], value: E | None, field: str) -> E | None:
    """Return what `member` does, and None for None."""
    return None if value is None else member(kind, value, field)
