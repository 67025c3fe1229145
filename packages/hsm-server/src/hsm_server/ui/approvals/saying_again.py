# SPDX-License-Identifier: MIT
"""
From an operation as it is shown back to the operation, so that it can be done.

Nothing rests on this being right: the core finds by its own digest whether it is what
was agreed to, and refuses anything else.
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
"""Operations whose result gives nothing away, and nothing that must be carried away."""


def said_again(shown: ShownOperation) -> Operation[Any] | None:
    """
    Return the operation that is shown.

    Returns:
        None if a part of it is not shown, or if its result is not for a page.
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
    """Return what a field was set to; items of a list are taken out of *given*."""
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
