# SPDX-License-Identifier: MIT
"""Stored forms: common base that rejects unknown fields and hides content from logs."""

from __future__ import annotations

from typing import Final

import msgspec


class StoredForm(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    omit_defaults=True,
):
    """Base of the parts of a stored form."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class _Numbered(msgspec.Struct):
    format: int = 0


_NUMBERED: Final = msgspec.json.Decoder(_Numbered)


def newer_format(payload: bytes, known: int) -> int:
    """
    Return the number of a format that is newer than what is known; 0 for any other.

    Args:
        payload: A JSON object that could not be read as one of *known*.

        known: The newest format that can be read.
    """
    try:
        number = _NUMBERED.decode(payload).format
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return 0
    return number if number > known else 0


def made_by_newer(what: str, number: int, known: int) -> str:
    """Return the sentence for something whose format is newer than what is known."""
    return (
        f"{what} has format {number}, written by a newer release; this release "
        f"supports up to {known}. Use the newer release."
    )
