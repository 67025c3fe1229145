# SPDX-License-Identifier: MIT
"""Presentation of an operation to approvers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from enum import Enum
from functools import cache
from itertools import islice
from typing import Any, Final, get_type_hints

import msgspec

from hsm_core import operations as ops
from hsm_core._internal.keyring.documents import KeyDocument
from hsm_core._internal.time.clock import instant, utc_text
from hsm_core.consent import (
    SHOWN_FORMAT,
    ShownContext,
    ShownField,
    ShownOperation,
    hidden_sha256,
)
from hsm_core.model import Caller, Record, Role
from hsm_core.operations import Effect, Operation

_LONGEST_SHOWN: Final = 1024
_LONGEST_TEXT: Final = 4096
_MOST_FIELDS: Final = 64
_MOST_BYTES: Final = 12 * 1024
_MOST_RULES: Final = 32
_UNDONE_BY: Final = {
    "ActivateKey": "Rollback",
    "AttachCertificates": "RemoveCertificates",
    "CancelDestroy": "DestroyKey",
    "CreateKey": "DestroyKey",
    "DeriveKey": "DestroyKey",
    "HoldKey": "ReleaseKey",
    "ImportKey": "DestroyKey",
    "ReleaseKey": "HoldKey",
    "RemoveCertificates": "AttachCertificates",
    "ResumeKey": "SuspendKey",
    "Rollback": "Rollback",
    "RotateKey": "Rollback",
    "SetRotation": "SetRotation",
    "SuspendKey": "ResumeKey",
    "UpdateKey": "UpdateKey",
}
"""Operation that undoes each operation; the others can't be undone."""

_GIVES: Final = frozenset({"BackUpStores", "ExportKey"})
_GIVING: Final = frozenset({Effect.READ, Effect.USE, Effect.VIEW})
_PACKED: Final = msgspec.msgpack.Encoder(order="sorted")
"""Packs the hashed fields in a fixed order, independent of declarations."""


def present(
    operation: Operation[Any],
    *,
    requester: str,
    document: KeyDocument | None,
    salt: bytes,
    context: ShownContext | None = None,
) -> ShownOperation:
    """
    Return what approvers see of a resolved operation; its digest binds all of it.

    Two operations that differ in anything are shown differently under one salt. What is
    marked as secret is never in it, nor are long bytes and text; where there are too
    many fields, lists are not either. A hash stands for them.

    Args:
        operation: With ids for names, and defaults filled.

        requester: Principal that asks.

        document: The key that it is about. Where the operation names no version, it is
            bound to the one that is current now.

        salt: Random, for this approval only; `SALT_BYTES` long.

        context: What approvers need to know besides.

    Raises:
        TypeError: The operation has a field of a type that no operation should have.
    """
    fields = tuple(islice(_fields(operation, salt, _LONGEST_SHOWN), _MOST_FIELDS + 1))
    if len(fields) > _MOST_FIELDS or len(_PACKED.encode(fields)) > _MOST_BYTES:
        fields = tuple(_folded(operation, salt))
    version = getattr(operation, "version", None)
    if version is None and document is not None:
        version = document.current
    return ShownOperation(
        format=SHOWN_FORMAT,
        kind=type(operation).__name__,
        requester=requester,
        key_id=document.key_id if document else "",
        key_name=document.name if document else "",
        algorithm=document.algorithm if document else _algorithm(operation),
        version=version or 0,
        fields=fields,
        context=context,
    )


def context_of(
    operation: Operation[Any],
    caller: Caller,
    document: KeyDocument | None,
    others: Mapping[str, KeyDocument],
    *,
    salt: bytes,
    frees_from: Sequence[str] = (),
    last_used_at: int = 0,
) -> ShownContext:
    """
    Return what approvers need to know besides a resolved operation.

    Args:
        operation: As for `present`.

        caller: Who asks.

        document: The key that it is about.

        others: The further keys that it names, by field.

        salt: As for `present`.

        frees_from: Names of rules that it would free the key from.

        last_used_at: When the key was last used, microseconds since 1970, or 0.
    """
    undoable, undo = _undoing(operation)
    before = state_before(operation, document) if document else {}
    rules = list(frees_from[:_MOST_RULES])
    if len(frees_from) > _MOST_RULES:
        rules.append(f"and {len(frees_from) - _MOST_RULES} more")
    return ShownContext(
        requester_roles=tuple(role for role in Role if role in caller.roles),
        requester_address=caller.source_address,
        requester_certificate=caller.certificate_subject,
        requester_certificate_sha256=caller.certificate_sha256,
        owner=document.owner if document else "",
        tags=document.tags if document else (),
        versions=len(document.versions) if document else 0,
        last_used_at=utc_text(instant(last_used_at)) if last_used_at else "",
        before=tuple(
            field
            for name, value in before.items()
            for field in _value(name, value, salt, _LONGEST_SHOWN)
        ),
        names=tuple(
            ShownField(name=field, text=other.name)
            for field, other in others.items()
            if other.name
        ),
        frees_from=tuple(rules),
        undoable=undoable,
        undo=undo,
    )


def state_before(operation: Operation[Any], key: KeyDocument) -> dict[str, Any]:
    """Return what an operation changes of a key, as it is now, by field."""
    match operation:
        case ops.UpdateKey():
            names = ("name", "description", "owner", "tags")
            changed = [n for n in names if getattr(operation, n) is not None]
            return {name: getattr(key, name) for name in changed}
        case ops.SetRotation():
            rule = key.rotation
            return {
                "max_age_days": (rule.max_age_days or None) if rule else None,
                "max_uses": (rule.max_uses or None) if rule else None,
            }
        case ops.ExtendRetention():
            version = key.version(operation.version)
            until = version.retain_until if version else 0
            return {"until": instant(until) if until else None}
        case ops.ReleaseKey():
            return {"hold": key.hold}
        case _:
            return {}


def _undoing(operation: Operation[Any]) -> tuple[bool, str]:
    """Return whether an operation can be undone, and how, or why not."""
    kind = type(operation).__name__
    days = getattr(operation, "waiting_days", None)
    if days:
        return True, f"It can be cancelled for {days} days, with CancelDestroy."
    if kind in _UNDONE_BY:
        return True, f"It can be undone, with {_UNDONE_BY[kind]}."
    if operation.effect in _GIVING or kind in _GIVES:
        return False, "It can't be undone: data that was returned can't be recalled."
    return False, "It can't be undone."


def _algorithm(operation: Operation[Any]) -> str:
    return str(getattr(operation, "algorithm", "") or "")


def _fields(
    record: Record, salt: bytes, longest: int, prefix: str = ""
) -> Iterator[ShownField]:
    for field, value in _set(record):
        name = prefix + field.name
        if field.name in _secrets(type(record)):
            yield _hidden(name, _packed(value), salt)
        else:
            yield from _value(name, value, salt, longest)


def _set(record: Record) -> Iterator[tuple[msgspec.structs.FieldInfo, Any]]:
    """Give the fields that are not at their default, with their values."""
    for field in msgspec.structs.fields(type(record)):
        value = getattr(record, field.name)
        default = field.default
        if field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory()
        if type(value) is not type(default) or value != default:
            yield field, value


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
        yield from _record(name, value, salt, longest)
    elif isinstance(value, tuple):
        # Items may show nothing, being all at their defaults; so they are counted.
        yield ShownField(name=name, number=len(value))
        for number, item in enumerate(value):
            yield from _value(f"{name}.{number}", item, salt, longest)
    else:
        yield _scalar(name, value, salt, longest)


def _record(
    name: str, record: Record, salt: bytes, longest: int
) -> Iterator[ShownField]:
    """Show a record by its fields, and by its type where they don't tell it."""
    fields = list(_fields(record, salt, longest, f"{name}."))
    if not fields or record.__struct_config__.tag is not None:
        yield ShownField(name=name, text=type(record).__name__)
    yield from fields


def _scalar(name: str, value: Any, salt: bytes, longest: int) -> ShownField:
    match value:
        case None:
            return ShownField(name=name)
        case bytes():
            shown = len(value) <= longest
            field = ShownField(name=name, data=value)
            return field if shown else _hidden(name, value, salt)
        case int():
            return ShownField(name=name, number=int(value))
        case datetime():
            return ShownField(name=name, text=utc_text(value))
        case str():
            text = value.value if isinstance(value, Enum) else value
            encoded = text.encode()
            shown = len(encoded) <= _LONGEST_TEXT
            field = ShownField(name=name, text=text)
            return field if shown else _hidden(name, encoded, salt)
        case _:
            raise TypeError(f"{name}: unsupported type {type(value).__name__}")


def _hidden(name: str, value: bytes, salt: bytes) -> ShownField:
    digest = hidden_sha256(salt, name, value)
    return ShownField(name=name, length=len(value), sha256=digest)


def _packed(value: Any) -> bytes:
    """Return bytes as they are, text in UTF-8, and whatever else packed."""
    match value:
        case bytes():
            return value
        case str():
            return value.encode()
        case _:
            return _PACKED.encode(value)


def _folded(record: Record, salt: bytes) -> Iterator[ShownField]:
    """Show scalars, and each list or bytes as one hash of their packed form."""
    for field, value in _set(record):
        if isinstance(value, tuple | Record) or field.name in _secrets(type(record)):
            yield _hidden(field.name, _packed(value), salt)
        else:
            yield _scalar(field.name, value, salt, 0)
