# SPDX-License-Identifier: MIT
"""Payloads of plans: checked and measured, for nothing else differs from use to use."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import cache
from typing import Any, Final, TypeAlias

import msgspec

from hsm_core._json import item_types
from hsm_core.operations import Operation
from hsm_core.settings import Limits

_MOST_ITEMS: Final = 1000
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
    if not text:
        return text == ""
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
    rows = tuple((name, _most(name, limits), name in protects) for name in names)

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


def batch_measure_of(
    operation: Operation[Any],
    names: tuple[str, ...],
    protects: Collection[str],
    limits: Limits,
    only: str = "",
) -> Measure:
    """
    Return the measure of batches.

    Args:
        operation: One of them.

        names: The fields of their items that are payload.

        protects: `UseHandler.protects` of an item.

        limits: Sizes that the core accepts.

        only: The one field that every item has, where it may have one of several.
    """
    kind: Any = item_types(type(operation))["items"]
    left_out = set(names) - {only} if only else set(names) - _never_none(kind)
    rows = tuple(
        (name, _most(name, limits), name in protects, name in left_out)
        for name in names
    )

    def measure(sent: Any) -> Payload | None:
        items, total, protected = sent.items, 0, 0
        if type(items) is not tuple or not 0 < len(items) <= _MOST_ITEMS:
            return None
        for item in items:
            if type(item) is not kind:
                return None
            if item.reference != "" and not is_plain(item.reference):
                return None
            for name, most, counts, may_miss in rows:
                data = getattr(item, name)
                if data is None and may_miss:
                    continue
                if type(data) is not bytes or len(data) > most or (only and may_miss):
                    return None
                total += len(data)
                if counts:
                    protected += len(data)
        if total > limits.payload_bytes:
            return None
        return (len(items),), total, protected, len(items)

    return measure


@cache
def _never_none(kind: type[Any]) -> frozenset[str]:
    fields = msgspec.structs.fields(kind)
    return frozenset(f.name for f in fields if f.default is not None)


def _most(name: str, limits: Limits) -> int:
    if name in {"digest", "mu"}:
        return _MOST_DIGEST_BYTES
    return limits.aad_bytes if name == "aad" else limits.payload_bytes
