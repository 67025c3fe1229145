# SPDX-License-Identifier: MIT
"""
Strict JSON: input that msgspec alone would accept is rejected first.

That is repeated names, deep nesting, NaN and Infinity, lone surrogates, and base64
whose unused bits are not zero.
"""

from __future__ import annotations

import binascii
import json
import re
from collections.abc import Iterable
from types import UnionType
from typing import Annotated, Any, Final, TypeAlias, Union, get_args, get_origin

import msgspec

from hsm_core.errors import MalformedError, PayloadTooLargeError

Json: TypeAlias = Any
"""JSON value: dict, list, str, int, float, bool or None."""

MAX_DEPTH: Final = 16
"""Maximum nesting depth of arrays and objects."""

_PIECE: Final = 65_536
_BRACKETS: Final = bytes.maketrans(b"{}", b"[]")
_OTHERS: Final = bytes(set(range(256)) - set(b'[]{}"'))


def _refuse_duplicates(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise MalformedError("The JSON text has an object with a duplicate name.")
    return found


def _refuse_constant(name: str) -> Json:
    raise MalformedError(f"The JSON text contains {name}, which JSON does not allow.")


def _bounded_int(digits: str) -> int:
    if len(digits.lstrip("-")) > 20:
        raise MalformedError("The JSON text has a number of more than 20 digits.")
    return int(digits)


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_refuse_duplicates,
    parse_constant=_refuse_constant,
    parse_int=_bounded_int,
)
"""To make one takes as long as to read a short text."""


def _check_depth(data: bytes) -> None:
    if data.count(b"[") + data.count(b"{") <= MAX_DEPTH:
        return
    left = _brackets(data)
    for _ in range(MAX_DEPTH):
        left = left.replace(b"[]", b"")  # the innermost level
    if b"[]" in left or left.endswith(b"[" * (MAX_DEPTH + 1)):
        raise MalformedError(
            f"The JSON text is nested deeper than {MAX_DEPTH} levels.", limit=MAX_DEPTH
        )


def _brackets(data: bytes) -> bytes:
    """Return the brackets outside of strings, all as square ones."""
    plain = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    left = plain.translate(_BRACKETS, _OTHERS).replace(b'""', b"")
    if b'"' not in left:
        return left
    # In pieces, for a text may be nothing but strings, and each becomes an object.
    outside, is_inside = bytearray(), 0
    for start in range(0, len(left), _PIECE):
        parts = left[start : start + _PIECE].split(b'"')
        outside += b"".join(parts[is_inside::2])
        is_inside = (is_inside + len(parts) - 1) % 2
    return bytes(outside)


def scan_json(data: bytes) -> Json:
    """
    Parse JSON strictly (RFC 8259, and I-JSON of RFC 7493 for names).

    Raises:
        MalformedError: It is not UTF-8 or not JSON, repeats a name in an object, is
            nested deeper than ``MAX_DEPTH``, or holds NaN, Infinity or a lone
            surrogate.
    """
    _check_depth(data)
    try:
        text = data.decode("utf-8")
        if text.startswith("\ufeff"):
            raise json.JSONDecodeError("Unexpected UTF-8 BOM", text, 0)
        tree = _DECODER.decode(text)
    except UnicodeDecodeError:
        raise MalformedError("The JSON text must be UTF-8.") from None
    except json.JSONDecodeError as error:
        raise MalformedError(
            f"Not valid JSON at character {error.pos}: {error.msg}."
        ) from None
    except RecursionError:
        raise MalformedError("The JSON text is nested too deeply.") from None
    if "\\u" in text:
        _refuse_surrogates(tree)
    return tree


def _strings(tree: Json) -> Iterable[str]:
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, dict):
        for name, value in tree.items():
            yield name
            yield from _strings(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _strings(value)


def _refuse_surrogates(tree: Json) -> None:
    for text in _strings(tree):
        try:
            text.encode("utf-8")
        except UnicodeEncodeError:
            raise MalformedError("The JSON text contains a lone surrogate.") from None


_BASE64: Final = r"(?:[A-Za-z0-9+/]{4})*+(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?\Z"


def _decode_base64(field: str, text: str, limit: int | None) -> bytes:
    try:
        data = binascii.a2b_base64(text)
        is_canonical = binascii.b2a_base64(data, newline=False) == text.encode()
    except ValueError:
        data, is_canonical = b"", False
    if not is_canonical:
        # Matched only then: it takes twice as long as both conversions.
        if not re.match(_BASE64, text):
            raise MalformedError(
                f"{field} must be standard base64 (RFC 4648, section 4, with padding).",
                field=field,
            )
        raise MalformedError(
            f"{field} must be canonical base64: the unused bits must be zero.",
            field=field,
        )
    if limit is not None and len(data) > limit:
        raise PayloadTooLargeError(field, actual=len(data), maximum=limit)
    return data


def bytes_fields(cls: type) -> frozenset[str]:
    """Return which fields of a record are byte strings."""
    return _fields_of(cls).byte_strings


def item_types(cls: type) -> dict[str, type[msgspec.Struct]]:
    """Return which fields are lists of records, and of what records."""
    return _fields_of(cls).items


class _Fields(msgspec.Struct, frozen=True):
    byte_strings: frozenset[str]
    items: dict[str, type[msgspec.Struct]]


_FIELDS: Final[dict[type, _Fields]] = {}


def _fields_of(cls: type) -> _Fields:
    found = _FIELDS.get(cls)
    if found is None:
        fields = msgspec.structs.fields(cls)
        items = {field.encode_name: _item_type(field.type) for field in fields}
        found = _FIELDS[cls] = _Fields(
            frozenset(field.encode_name for field in fields if _is_bytes(field.type)),
            {name: item for name, item in items.items() if item is not None},
        )
    return found


# Not msgspec.inspect: it describes every record inside too, which takes ten times as
# long, and each command of the client waits for it.


def _is_bytes(kind: Any) -> bool:
    if kind is bytes:
        return True
    if isinstance(kind, UnionType) or get_origin(kind) in {Annotated, Union}:
        return any(map(_is_bytes, get_args(kind)))
    return False


def _item_type(kind: Any) -> type[msgspec.Struct] | None:
    match get_origin(kind), get_args(kind):
        case origin, (inner, *_) if origin is Annotated:
            return _item_type(inner)
        case origin, (item, last) if origin is tuple and last is ...:
            is_record = isinstance(item, type) and issubclass(item, msgspec.Struct)
            return item if is_record else None
        case _:
            return None


def with_bytes(
    tree: dict[str, Json], cls: type, limit: int | None, place: str = ""
) -> dict[str, Any]:
    """
    Return *tree* with the byte strings decoded, those of its items too.

    Args:
        tree: Fields of a record of type *cls*.

        cls: The record.

        limit: Longest byte string accepted, in bytes, or None.

        place: What stands before a field's name in messages.

    Raises:
        MalformedError: A byte string is not canonical base64.
        PayloadTooLargeError: A byte string is longer than *limit*.
    """
    fields, found = _fields_of(cls), dict[str, Any]()
    for name, value in tree.items():
        if isinstance(value, str) and name in fields.byte_strings:
            found[name] = _decode_base64(place + name, value, limit)
        elif isinstance(value, list) and name in fields.items:
            item_type = fields.items[name]
            found[name] = [
                with_bytes(item, item_type, limit, f"{place}{name}[{number}].")
                if isinstance(item, dict)
                else item
                for number, item in enumerate(value)
            ]
        else:
            found[name] = value
    return found
