# SPDX-License-Identifier: MIT
"""Whole numbers in forms and queries."""

from __future__ import annotations

from typing import Final

from hsm_core.errors import InvalidInputError

_MOST_DIGITS: Final = 15


def whole_number(
    text: str, field: str, problem: str = "Must be a whole number."
) -> int:
    """
    Parse a number of at most 15 decimal digits.

    Args:
        text: Text to parse.

        field: Name of the field.

        problem: Error message.

    Raises:
        InvalidInputError: It is not a number, or has more than 15 digits.
    """
    if not (text.isascii() and text.isdecimal()) or len(text) > _MOST_DIGITS:
        raise InvalidInputError(problem, field=field)
    return int(text)
