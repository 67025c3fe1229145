# SPDX-License-Identifier: MIT
"""Whole numbers that somebody typed, or that a page of ours sends back."""

from __future__ import annotations

from typing import Final

from hsm_core.errors import InvalidInputError

_MOST_DIGITS: Final = 15


def whole_number(
    text: str, field: str, problem: str = "Give a whole number here."
) -> int:
    """
    Return the number that a text is, in decimal digits alone.

    Args:
        text: What was given.

        field: Where.

        problem: What is said if it is none.

    Raises:
        InvalidInputError: It is none, or has more than 15 digits.
    """
    if not (text.isascii() and text.isdecimal()) or len(text) > _MOST_DIGITS:
        raise InvalidInputError(problem, field=field)
    return int(text)
