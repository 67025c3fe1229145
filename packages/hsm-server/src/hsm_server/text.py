# SPDX-License-Identifier: MIT
"""Text for a terminal."""

from __future__ import annotations


def escaped(text: str) -> str:
    r"""
    Return text with all characters escaped that could control a terminal.

    Example:
        >>> escaped("red\x1b[31m")
        'red\\x1b[31m'
    """
    return "".join(
        letter if letter.isprintable() else letter.encode("unicode_escape").decode()
        for letter in text
    )
