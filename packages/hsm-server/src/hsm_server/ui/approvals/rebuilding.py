# SPDX-License-Identifier: MIT
"""
Rebuild an operation from the fields of an approval request, to execute it.

Not security-relevant: the core compares its own digest of the operation with the
approved one, and rejects any other.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from hsm_core import wire
from hsm_core.consent import ShownField, ShownOperation
from hsm_core.errors import InvalidInputError
from hsm_core.model import KeyInfo
from hsm_core.operations import (
    OPERATIONS,
    BeginLedger,
    Operation,
    RecoverKey,
    RecoverStore,
    result_type,
)

_KNOWN: Final[dict[str, type[Operation[Any]]]] = {
    cls.__name__: cls
    for cls in OPERATIONS
    if result_type(cls) is KeyInfo or cls in {BeginLedger, RecoverKey, RecoverStore}
}
"""Operations whose result holds no secret and no data to download."""


def rebuild_operation(shown: ShownOperation) -> Operation[Any] | None:
    """
    Return the operation of an approval request.

    Returns:
        None if a field is hidden, or if its result can't be shown on a page.
    """
    kind = _KNOWN.get(shown.kind)
    if kind is None or any(field.length is not None for field in shown.fields):
        return None
    given = {field.name: field for field in shown.fields}
    tree: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        if field.name in given:
            tree[field.name] = _value(
                given, field.name, msgspec.inspect.type_info(field.type)
            )
            del given[field.name]
    if given:
        # A part of a record, or a field that this version does not know.
        return None
    try:
        return wire.convert(tree, kind)
    except InvalidInputError:
        return None


def _value(given: dict[str, ShownField], name: str, info: msgspec.inspect.Type) -> Any:
    """Return a field's value; items of a list are removed from *given*."""
    field = given[name]
    if _is(info, msgspec.inspect.BoolType):
        return bool(field.number)
    if _is(info, msgspec.inspect.VarTupleType):
        items = [given.pop(f"{name}.{n}", None) for n in range(field.number or 0)]
        return [_scalar(item) for item in items if item is not None]
    return _scalar(field)


def _scalar(field: ShownField) -> Any:
    forms = (field.text, field.number, field.data)
    return next((form for form in forms if form is not None), None)


def _is(info: msgspec.inspect.Type, wanted: type[msgspec.inspect.Type]) -> bool:
    match info:
        case msgspec.inspect.Metadata(type=inner):
            return _is(inner, wanted)
        case msgspec.inspect.UnionType(types=types):
            return any(_is(kind, wanted) for kind in types)
        case _:
            return isinstance(info, wanted)
