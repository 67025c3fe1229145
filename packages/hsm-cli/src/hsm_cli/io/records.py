# SPDX-License-Identifier: MIT
"""Records as JSON, and single fields of them."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec
from msgspec import Struct, structs

from hsm_cli.io.output import neutral_json
from hsm_core import wire
from hsm_core.errors import InvalidInputError


def encode_record(value: object) -> str:
    """
    Return a record as one line of JSON without active terminal characters.

    Fields at their default are omitted, but lists are present even if they are empty.
    """
    return neutral_json(wire.encode_json(_with_lists(value)).decode())


def _with_lists(value: object) -> object:
    match value:
        case Struct():
            names, config = _fields(type(value)), type(value).__struct_config__
            tag = {} if config.tag is None else {config.tag_field: config.tag}
            found = ((name, getattr(value, field), old) for name, field, old in names)
            return tag | {
                name: _with_lists(inner)
                for name, inner, old in found
                if isinstance(inner, list | tuple) or inner != old
            }
        case list() | tuple():
            return [_with_lists(item) for item in value]
        case dict():
            return {name: _with_lists(item) for name, item in value.items()}
        case _:
            return value


@cache
def _fields(cls: type[Struct]) -> list[tuple[str, str, Any]]:
    """Return the encoded name, name and default of each field."""
    return [
        (field.encode_name, field.name, _default(field))
        for field in structs.fields(cls)
    ]


def _default(field: structs.FieldInfo) -> object:
    if field.default_factory is not msgspec.NODEFAULT:
        return field.default_factory()
    return field.default


def field_text(value: object, path: str) -> str:
    """
    Return a field of a record as text; a list of plain values has one per line.

    Args:
        value: The record.

        path: Name of the field, as in the JSON output; inner names follow a dot.

    Raises:
        InvalidInputError: There is no such field; the message lists the names.
    """
    found = value
    for name in path.replace("-", "_").split("."):
        found = _field(found, name)
    if isinstance(found, list | tuple):
        return "\n".join(map(_text, found))
    return _text(found)


def has_field(value: object, path: str) -> bool:
    """Return whether a record has a field of this path's first name."""
    return path.replace("-", "_").partition(".")[0] in _names(value)


def _names(value: object) -> list[str]:
    match value:
        case Struct():
            return [name for name, _, _ in _fields(type(value))]
        case dict():
            return [str(name) for name in value]
        case _:
            return []


def _field(value: object, name: str) -> object:
    if name not in _names(value):
        known = ", ".join(_names(value)) or "none; it is a plain value"
        raise InvalidInputError(
            f"There is no field {name!r} in the result. Fields: {known}.",
            field="field",
        )
    if isinstance(value, dict):
        return value[name]
    fields = _fields(type(value)) if isinstance(value, Struct) else []
    return next(getattr(value, own) for known, own, _ in fields if known == name)


def _text(value: object) -> str:
    if value is None:
        return ""
    plain = msgspec.to_builtins(value)
    return plain if isinstance(plain, str) else encode_record(value)
