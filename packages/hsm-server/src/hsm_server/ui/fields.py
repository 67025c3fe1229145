# SPDX-License-Identifier: MIT
"""Fields of forms: what they ask for, what was given, and what was wrong with it."""

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
    """One value of a list, or one box to tick."""

    value: str
    label: str
    is_chosen: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Field:
    """
    One field of a form.

    Attributes:
        kind: ``text``, ``number``, ``area``, ``select``, ``boxes``, ``box`` (a single
            one, whose label stands beside it), ``date``, ``instant`` or ``file``.
        longest: Most characters, or 0.
        is_beside: Whether it belongs to the field before, and stands close to it.
        error: What was wrong with what was given, or empty.
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


def filled(fields: Iterable[Field], form: Form) -> Sequence[Field]:
    """Return the fields with what was given for them."""
    return [_filled(field, form) for field in fields]


def _filled(field: Field, form: Form) -> Field:
    given = form.all(field.name)
    options = tuple(
        Option(option.value, option.label, option.value in given)
        for option in field.options
    )
    return replace(field, value=given[0] if given else "", options=options)


def marked(fields: Iterable[Field], error: HSMError) -> Sequence[Field]:
    """Return the fields with an error beside the one that it concerns, if any."""
    wrong = str(error.facts.get("field", "")).partition("[")[0].partition(".")[0]
    return [
        replace(field, error=sentence(error)) if field.name == wrong else field
        for field in fields
    ]


def sentence(error: HSMError) -> str:
    """Return what was wrong for people, to whom types and patterns say nothing."""
    text = str(error)
    if "Expected `" not in text:
        return text
    bound = _BOUND.search(text)
    if bound is None:
        return "This can't be taken as it is."
    unit = " characters" if bound["length"] else ""
    return f"{_BOUNDS[bound['sign']]} {bound['number']}{unit}."


def at_utc(form: Form, name: str) -> str | None:
    """Return an instant that was given without a zone, as RFC 3339 has it in UTC."""
    text = form.get(name).strip()
    if not text:
        return None
    return f"{text}:00Z" if text.count(":") == 1 else f"{text}Z"


def tags_of(form: Form, name: str) -> list[str]:
    """Return tags that were given with commas or white space between."""
    return form.get(name).replace(",", " ").split()
