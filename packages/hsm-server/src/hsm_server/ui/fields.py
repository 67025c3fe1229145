# SPDX-License-Identifier: MIT
"""Form fields: definition, value and error."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from hsm_core.errors import HSMError
from hsm_server.ui.forms import Form

_BOUND: Final = re.compile(r"(?P<length>of length )?(?P<sign>[<>]=) (?P<number>\d+)")
_BOUNDS: Final = {"<=": "At most", ">=": "At least"}


@dataclass(frozen=True, slots=True)
class Option:
    """A value of a list, or a checkbox."""

    value: str
    label: str
    is_chosen: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """
    A form field.

    Attributes:
        kind: ``text``, ``number``, ``area``, ``select``, ``boxes``, ``box`` (a single
            checkbox), ``date``, ``instant`` or ``file``.
        longest: Maximum number of characters, or 0 for no limit.
        is_beside: Whether it belongs to the previous field.
        error: Error of its value, or empty.
    """

    name: str
    label: str
    kind: str = "text"
    hint: str = ""
    value: str = ""
    options: tuple[Option, ...] = ()
    is_required: bool = False
    longest: int = 0
    is_beside: bool = False
    error: str = ""


def fill_fields(fields: Iterable[Field], form: Form) -> Sequence[Field]:
    """Return the fields with the submitted values."""
    return [_filled(field, form) for field in fields]


def _filled(field: Field, form: Form) -> Field:
    given = form.all(field.name)
    options = tuple(
        Option(option.value, option.label, option.value in given)
        for option in field.options
    )
    return replace(field, value=given[0] if given else "", options=options)


def mark_error(fields: Iterable[Field], error: HSMError) -> Sequence[Field]:
    """Return the fields with an error at the field that it names, if any."""
    wrong = str(error.facts.get("field", "")).partition("[")[0].partition(".")[0]
    return [
        replace(field, error=error_message(error)) if field.name == wrong else field
        for field in fields
    ]


def error_message(error: HSMError) -> str:
    """Return an error message without types and patterns."""
    text = str(error)
    if "Expected `" not in text:
        return text
    bound = _BOUND.search(text)
    if bound is None:
        return "Invalid value."
    unit = " characters" if bound["length"] else ""
    return f"{_BOUNDS[bound['sign']]} {bound['number']}{unit}."


def read_utc(form: Form, name: str) -> str | None:
    """Return an instant without a zone as UTC (RFC 3339)."""
    text = form.get(name).strip()
    if not text:
        return None
    return f"{text}:00Z" if text.count(":") == 1 else f"{text}Z"


def read_tags(form: Form, name: str) -> list[str]:
    """Return tags separated by commas or spaces."""
    return form.get(name).replace(",", " ").split()
