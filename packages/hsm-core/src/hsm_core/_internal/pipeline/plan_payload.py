# SPDX-License-Identifier: MIT
"""Payloads of plans: checked and measured, for nothing else differs from use to use."""

from __future__ import annotations

from collections.abc import Callable, Collection
from operator import attrgetter
from typing import Any, Final, TypeAlias

from hsm_core.limits import Limits

MOST_CHARACTERS: Final = 128
_MOST_DIGEST_BYTES: Final = 64


Payload: TypeAlias = tuple[tuple[int, ...], int, int, int]
"""
What is new in a use.

That is what is recorded of it (lengths of fields, or how many items), the length of all
byte strings, that of those which a use of the key protects, and how many uses it is.
"""

Measure: TypeAlias = Callable[[Any], Payload | None]
"""Measures an operation; None for one that the pipeline must judge."""


def is_plain(text: object) -> bool:
    """Return whether a text is short, and can be printed as it is."""
    return type(text) is str and len(text) <= MOST_CHARACTERS and text.isprintable()


def measure_of(
    names: tuple[str, ...], protects: Collection[str], limits: Limits
) -> Measure:
    """
    Return the measure of single operations of one form.

    Args:
        names: The fields of the payload that the form has.

        protects: `UseHandler.protects`.

        limits: Sizes that the core accepts.
    """
    rows = tuple((name, most_bytes(name, limits), name in protects) for name in names)
    if len(rows) == 1:
        return _measure_of_one(*rows[0])

    def measure(sent: Any) -> Payload | None:
        numbers, protected = [], 0
        for name, most, counts in rows:
            data = getattr(sent, name)
            if type(data) is not bytes or len(data) > most:
                return None
            numbers.append(len(data))
            if counts:
                protected += len(data)
        return tuple(numbers), sum(numbers), protected, 1

    return measure


def _measure_of_one(name: str, most: int, counts: bool) -> Measure:
    data_of = attrgetter(name)

    def measure(sent: Any) -> Payload | None:
        data = data_of(sent)
        if type(data) is not bytes or len(data) > most:
            return None
        size = len(data)
        return (size,), size, size if counts else 0, 1

    return measure


def most_bytes(name: str, limits: Limits) -> int:
    """Return how long a field of a payload may be."""
    if name in {"digest", "mu"}:
        return _MOST_DIGEST_BYTES
    return limits.aad_bytes if name == "aad" else limits.payload_bytes
