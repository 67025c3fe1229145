# SPDX-License-Identifier: MIT
"""
Operations and results ↔ JSON and MessagePack: one codec for REST, IPC and CLI.

msgspec alone accepts duplicate names, very deep nesting and base64 that is not
canonical. One scanner here refuses them first.

MessagePack is accepted in deterministic form only: what is decoded must encode to the
same bytes again. So one value has one encoding, and a digest of it means something.
"""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping
from datetime import UTC, datetime
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Any, Final, TypeVar, get_args, get_type_hints

import msgspec

from hsm_core._json import (
    MAX_DEPTH,
    Json,
    bytes_fields,
    item_types,
    scan_json,
    with_bytes,
)
from hsm_core.errors import InvalidInputError, MalformedError, PayloadTooLargeError
from hsm_core.model import Record
from hsm_core.operations.base import Operation

if TYPE_CHECKING:
    from hsm_core.operations import AnyOperation

__all__ = [
    "MAX_DEPTH",
    "checked",
    "convert",
    "decode_json",
    "decode_operation",
    "decode_packed",
    "decode_packed_operation",
    "encode_json",
    "encode_packed",
    "scan_json",
]

T = TypeVar("T")
Op = TypeVar("Op", bound=Operation[Any])
RecordT = TypeVar("RecordT", bound=Record)

_SHORT_BYTES: Final = 4096
_ECHOED_CHARACTERS: Final = 200


_PATH: Final = r" - at `\$\.?([^`]*)`$"
_NAMED: Final = r"(?:missing required|contains unknown) field `([^`]+)`$"


_NAME: Final = (
    "up to 64 lower-case letters, digits, dots, hyphens and underscores, with a letter "
    "or digit first"
)
_FORMS: Final = {
    repr(pattern): form
    for pattern, form in (
        (r"^[0-9a-z][0-9a-z._-]{0,63}\Z", f"a key ID or name: {_NAME}"),
        (r"^([0-9a-z][0-9a-z._-]{0,63})?\Z", _NAME),
        (
            r"^[0-9A-Za-z][0-9A-Za-z._:/=+@-]{0,63}\Z",
            "up to 64 letters, digits and characters of ._:/=+@-, with a letter or "
            "digit first",
        ),
        (r"^[^\x00-\x1f\x7f-\x9f]*\Z", "one line without control characters"),
        (
            r"^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}\Z",
            "a UUID in lower-case letters, such as "
            "5b1c9a52-7a0e-4d0c-8a35-0c7f0e9b1d24",
        ),
    )
}
"""Words for the patterns of common field types."""
_PATTERN: Final = r"Expected `str` matching regex (.+)\Z"


def _invalid(error: msgspec.ValidationError, cls: object) -> InvalidInputError:
    text = str(error)
    found = re.search(_PATH, text)
    if not found:
        named = re.search(_NAMED, text)
        facts = {"field": _echo(named[1])} if named else {}
        return InvalidInputError(f"{_echo(text)}.", **facts)
    field = _echo(found[1]) or "body"
    pattern = re.match(_PATTERN, text[: found.start()])
    if pattern and pattern[1] in _FORMS:
        return InvalidInputError(f"{field} must be {_FORMS[pattern[1]]}.", field=field)
    text = _echo(text[: found.start()])
    if text.startswith("Invalid enum value") and (values := _values(cls, field)):
        text += f". Use one of {', '.join(values)}"
    return InvalidInputError(f"{field}: {text}.", field=field)


def _values(cls: object, field: str) -> list[str]:
    """Return the values of a field that has an enumeration; none of a nested field."""
    hints = get_type_hints(cls) if isinstance(cls, type) else {}
    kind: object = hints.get(re.sub(r"\[\d+\]\Z", "", field))
    while not (isinstance(kind, type) and issubclass(kind, Enum)):
        if not (parts := get_args(kind)):
            return []
        kind = parts[0]
    return [str(one.value) for one in kind]


def _echo(text: str) -> str:
    """Return what may be repeated of the input: not too long, and printable."""
    short = text[:_ECHOED_CHARACTERS]
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in short)


def convert(
    tree: Json,
    cls: type[T],
    /,
    *,
    strict: bool = True,
    payload_limit: int | None = None,
) -> T:
    """
    Turn a parsed tree into a record, with byte strings as canonical base64.

    Args:
        tree: What `scan_json` gave, or fields of a query string.

        cls: The record wanted.

        strict: Whether ``"5"`` is refused where a number is meant; query strings are
            not strict.

        payload_limit: Longest byte string accepted, in bytes.

    Raises:
        InvalidInputError: A field is unknown, missing, or breaks its limits; the
            message names it.
        MalformedError: A byte string is not canonical base64.
        PayloadTooLargeError: A byte string is longer than *payload_limit*.
    """
    if isinstance(tree, dict) and isinstance(cls, type):
        tree = with_bytes(tree, cls, payload_limit)
    try:
        found = msgspec.convert(tree, cls, strict=strict, str_keys=True)
    except msgspec.ValidationError as error:
        raise _invalid(error, cls) from None
    if isinstance(found, Operation):
        _check_instants(found)
    return found


def _check_instants(operation: Operation[Any]) -> None:
    """Refuse a time that is before the first year or after the last one in UTC."""
    for name in operation.__struct_fields__:
        value = getattr(operation, name)
        if not isinstance(value, datetime):
            continue
        try:
            value.astimezone(UTC)
        except OverflowError:
            raise InvalidInputError(
                f"{name}: the time is outside the years 1 to 9999 in UTC.", field=name
            ) from None


def decode_json(data: bytes, cls: type[T]) -> T:
    """
    Read a record from JSON; for answers of a server that is not fully trusted.

    Raises:
        MalformedError: See `scan_json`.
        InvalidInputError: It is JSON, but not of this type.
    """
    return convert(scan_json(data), cls)


def decode_operation(
    data: bytes,
    cls: type[Op],
    /,
    *,
    path: Mapping[str, str] | None = None,
    payload_limit: int | None = None,
) -> Op:
    """
    Read an operation from a JSON body; *path* holds fields that stand elsewhere.

    Raises:
        MalformedError: See `scan_json`, and byte strings must be canonical base64.
        InvalidInputError: It breaks the operation's type; the message names the field.
        PayloadTooLargeError: A byte string is longer than *payload_limit*.
    """
    tree = scan_json(data) if data else {}
    if not isinstance(tree, dict):
        raise InvalidInputError("The body must be a JSON object.", field="body")
    for name in path or ():
        if name in tree:
            raise InvalidInputError(
                f"{name} must not be in the body: it is part of the path.", field=name
            )
    return convert({**tree, **(path or {})}, cls, payload_limit=payload_limit)


def encode_json(value: object) -> bytes:
    """Write a record as JSON: UTF-8, no white space, fields in their own order."""
    return _JSON.encode(value)


def encode_packed(value: object) -> bytes:
    """
    Write a record as deterministic MessagePack.

    Fields stand in their own order, names of other maps in theirs; shortest forms.
    """
    return _PACK.encode(value)


def decode_packed(data: bytes | bytearray, cls: type[T]) -> T:
    """
    Read a record from deterministic MessagePack.

    Raises:
        MalformedError: It is not MessagePack, or not in deterministic form (which a
            repeated name, a longer form than needed and trailing bytes are not).
        InvalidInputError: It breaks the type.
    """
    kind: Any = cls
    value: T = _unpacked(data, _unpacker(kind))
    return value


def _unpacked(data: bytes | bytearray, decoder: msgspec.msgpack.Decoder[T]) -> T:
    try:
        value = decoder.decode(data)
    except msgspec.ValidationError as error:
        raise _invalid(error, decoder.type) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise MalformedError("The frame must be MessagePack.") from None
    if _PACK.encode(value) != data:
        raise MalformedError("The frame must be deterministically encoded.")
    return value


def checked(record: RecordT, *, longest: int | None = None) -> RecordT:
    """
    Return a record that a program has built, checked against its own type.

    Building a record checks nothing; reading one does, so it is written and read.
    Long byte strings are left out of that, for their type is plain.

    Args:
        record: Any record.

        longest: Longest byte string allowed, in bytes.

    Raises:
        InvalidInputError: A field breaks its type or its limits; the message names it.
        PayloadTooLargeError: A byte string is longer than *longest*.
    """
    long = _long_fields(record, longest)
    if longest is not None:
        for field in item_types(type(record)):
            items = getattr(record, field)
            # What is no list of records is refused below.
            for number, item in enumerate(
                items if isinstance(items, tuple | list) else ()
            ):
                if isinstance(item, Record):
                    _long_fields(item, longest, f"{field}[{number}].")
    if not long:
        return _written_and_read(record)
    short = msgspec.structs.replace(record, **dict.fromkeys(long, b""))
    return msgspec.structs.replace(_written_and_read(short), **long)


def _long_fields(
    record: Record, longest: int | None, place: str = ""
) -> dict[str, bytes]:
    """Return the long byte strings of a record; type errors are reported later."""
    long = {}
    for name in bytes_fields(type(record)):
        value = getattr(record, name)
        if not isinstance(value, bytes | bytearray | memoryview):
            continue
        if longest is not None and len(value) > longest:
            raise PayloadTooLargeError(place + name, actual=len(value), maximum=longest)
        if len(value) > _SHORT_BYTES:
            long[name] = bytes(value)
    return long


def _written_and_read(record: RecordT) -> RecordT:
    try:
        packed = _PACK.encode(record)
    except (UnicodeEncodeError, OverflowError, TypeError, ValueError):
        name = type(record).__name__
        raise InvalidInputError(f"{name}: a field can't be serialized.") from None
    return decode_packed(packed, type(record))


def decode_packed_operation(data: bytes | bytearray) -> AnyOperation:
    """Read any operation from deterministic MessagePack; see `decode_packed`."""
    return _unpacked(data, _operation_unpacker())


@cache
def _operation_unpacker() -> msgspec.msgpack.Decoder[AnyOperation]:
    """Return the decoder of all operations, whose type takes long to hash."""
    from hsm_core.operations import AnyOperation

    return msgspec.msgpack.Decoder(AnyOperation)


@cache
def _unpacker(cls: Hashable) -> msgspec.msgpack.Decoder[Any]:
    """Return the decoder of a type; to make one costs more than to use it."""
    return msgspec.msgpack.Decoder(cls)


_JSON: Final = msgspec.json.Encoder()
_PACK: Final = msgspec.msgpack.Encoder(order="deterministic")
