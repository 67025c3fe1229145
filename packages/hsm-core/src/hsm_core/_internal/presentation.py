# SPDX-License-Identifier: MIT
"""How an operation is shown to those who are asked to consent to it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from enum import Enum
from functools import cache
from typing import Any, Final, get_type_hints

import msgspec

from hsm_core._internal.clock import utc_text
from hsm_core._internal.documents import KeyDocument
from hsm_core.consent import ShownField, ShownOperation, hidden_sha256
from hsm_core.model import Record
from hsm_core.operations import Operation

__all__ = ["present"]

_LONGEST_SHOWN: Final = 1024
_MOST_FIELDS: Final = 64
_MOST_BYTES: Final = 12 * 1024
_FORMAT: Final = 1
_PACKED: Final = msgspec.msgpack.Encoder(order="deterministic")


def present(
    operation: Operation[Any],
    *,
    requester: str,
    document: KeyDocument | None,
    salt: bytes,
) -> ShownOperation:
    """
    Return what approvers see of a resolved operation; its digest binds all of it.

    Args:
        operation: With ids for names, and defaults filled.

        requester: Principal that asks.

        document: The key that it is about. Where the operation names no version, it is
            bound to the one that is current now.

        salt: Random, for this approval only.
    """
    fields = tuple(_fields(operation, salt, _LONGEST_SHOWN))
    if len(fields) > _MOST_FIELDS or len(_PACKED.encode(fields)) > _MOST_BYTES:
        fields = tuple(_folded(operation, salt))
    version = getattr(operation, "version", None)
    if version is None and document is not None:
        version = document.current
    return ShownOperation(
        format=_FORMAT,
        kind=type(operation).__name__,
        requester=requester,
        key_id=document.key_id if document else "",
        key_name=document.name if document else "",
        algorithm=document.algorithm if document else _algorithm(operation),
        version=version or 0,
        fields=fields,
    )


def _algorithm(operation: Operation[Any]) -> str:
    return str(getattr(operation, "algorithm", "") or "")


def _fields(
    record: Record, salt: bytes, longest: int, prefix: str = ""
) -> Iterator[ShownField]:
    for field in msgspec.structs.fields(type(record)):
        value = getattr(record, field.name)
        if value is None or value == field.default:
            continue
        name = prefix + field.name
        if isinstance(value, bytes) and field.name in _secrets(type(record)):
            yield _hidden(name, value, salt)
        else:
            yield from _value(name, value, salt, longest)


@cache
def _secrets(kind: type[Record]) -> frozenset[str]:
    hints = get_type_hints(kind, include_extras=True)
    return frozenset(name for name, hint in hints.items() if _is_secret(hint))


def _is_secret(hint: Any) -> bool:
    """Return whether a type, or a part of it, is marked as `Secret` is."""
    marks = getattr(hint, "__metadata__", ())
    if any(
        isinstance(m, msgspec.Meta) and (m.extra or {}).get("secret") for m in marks
    ):
        return True
    return any(_is_secret(part) for part in getattr(hint, "__args__", ()))


def _value(name: str, value: Any, salt: bytes, longest: int) -> Iterator[ShownField]:
    if isinstance(value, Record):
        yield from _fields(value, salt, longest, f"{name}.")
    elif value == ():
        # That no tags are to be left says something else than nothing about tags.
        yield ShownField(name=name, length=0)
    elif isinstance(value, tuple):
        for number, item in enumerate(value):
            yield from _value(f"{name}.{number}", item, salt, longest)
    elif isinstance(value, bytes):
        shown = len(value) <= longest
        yield ShownField(name=name, data=value) if shown else _hidden(name, value, salt)
    elif isinstance(value, Enum):
        yield ShownField(name=name, text=str(value.value))
    elif isinstance(value, datetime):
        yield ShownField(name=name, text=utc_text(value))
    elif isinstance(value, int):
        yield ShownField(name=name, number=int(value))
    else:
        yield ShownField(name=name, text=str(value))


def _hidden(name: str, value: bytes, salt: bytes) -> ShownField:
    digest = hidden_sha256(salt, name, value)
    return ShownField(name=name, length=len(value), sha256=digest)


def _folded(record: Record, salt: bytes) -> Iterator[ShownField]:
    """Show scalars, and each list or long value as one hash of its packed form."""
    for field in msgspec.structs.fields(type(record)):
        value = getattr(record, field.name)
        if value is None or value == field.default:
            continue
        if isinstance(value, tuple | Record):
            yield _hidden(field.name, _PACKED.encode(value), salt)
        elif isinstance(value, bytes):
            yield _hidden(field.name, value, salt)
        else:
            yield from _value(field.name, value, salt, 0)
