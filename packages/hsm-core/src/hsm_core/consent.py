# SPDX-License-Identifier: MIT
"""
Approval statement: the shown operation, its digest and the signed text.

It is shown with its context: who asks, which key, what changes, and whether that can be
undone. A client recomputes the digest from what it displays, so that nobody agrees to
something else than they saw. Bytes that are secret or long are shown by their length
and a salted hash.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from datetime import datetime
from typing import ClassVar, Final

import msgspec
from msgspec.structs import replace

from hsm_core.errors import InputSizeError, InvalidInputError
from hsm_core.model import Record, Role

__all__ = [
    "SALT_BYTES",
    "SHOWN_FORMAT",
    "SSH_NAMESPACE",
    "Headline",
    "ShownChange",
    "ShownContext",
    "ShownField",
    "ShownOperation",
    "changes",
    "check_shown",
    "headline",
    "hidden_sha256",
    "shown_sha256",
    "statement",
]

SALT_BYTES: Final = 32
"""Length of an approval's random salt, in bytes."""

SHOWN_FORMAT: Final = 2
"""Current format version of shown operations."""

_FORMATS: Final = frozenset({1, SHOWN_FORMAT})
"""Supported format versions; version 1 has no context."""

SSH_NAMESPACE: Final = "ferrohsm-approval"
"""Namespace for ``ssh-keygen -Y sign -n``."""

_OPERATION: Final = b"ferrohsm approval operation v1\0"
_HIDDEN: Final = b"ferrohsm approval field v1\0"
_STATEMENT: Final = "ferrohsm approval v1"
_ENCODER: Final = msgspec.msgpack.Encoder(order="sorted")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class ShownField(Record, frozen=True, kw_only=True):
    """
    One field of an operation, in one of five forms.

    In none of the four below, it is set to nothing, where by default it is something.

    Attributes:
        name: Name of the field; of items of a list ``items.0.message``.
        text: Its value, if it is text, of an enumeration or an instant (RFC 3339, UTC);
            the name of its type, if that has to be told.
        number: Its value, if it is an integer; 0 or 1 if it is a truth value; of a list
            how many items it has.
        data: Its value, if it is bytes that may be shown.
        length: Of bytes that are not shown, such as long text in UTF-8.
        sha256: `hidden_sha256` of bytes that are not shown, hex.
    """

    name: str
    text: str | None = None
    number: int | None = None
    data: bytes | None = None
    length: int | None = None
    sha256: str = ""


class ShownContext(Record, frozen=True, kw_only=True):
    """
    Context of a shown operation, at the time of the request.

    Attributes:
        requester_roles: Roles of the requester.
        requester_address: Network address that the request came from, or empty.
        requester_certificate: Subject of the requester's client certificate, as RFC
            4514 writes it, or empty.
        requester_certificate_sha256: Its fingerprint, hex, or empty.
        owner: Owner of the key.
        tags: Tags of the key.
        versions: How many versions the key has; 0 without a key.
        last_used_at: When the key was last used (RFC 3339, UTC); empty if never.
        before: Fields that the operation changes, with their values before it; in the
            form of `ShownOperation.fields`.
        names: Names of the further keys that the operation names, by field.
        frees_from: Rules of the policy that hold for the key, and would not after it.
        undoable: Whether it can be undone.
        undo: How, or why not: one sentence.
    """

    requester_roles: tuple[Role, ...] = ()
    requester_address: str = ""
    requester_certificate: str = ""
    requester_certificate_sha256: str = ""
    owner: str = ""
    tags: tuple[str, ...] = ()
    versions: int = 0
    last_used_at: str = ""
    before: tuple[ShownField, ...] = ()
    names: tuple[ShownField, ...] = ()
    frees_from: tuple[str, ...] = ()
    undoable: bool = False
    undo: str = ""


class ShownOperation(Record, frozen=True, kw_only=True):
    """
    Operation as shown to approvers.

    Attributes:
        format: `SHOWN_FORMAT`.
        kind: Name of the operation.
        requester: Principal that asked.
        key_id: The key that it is about, or empty.
        key_name: Its name at that time.
        algorithm: Of the key, or of the one to be made.
        version: The version that it names, or else the one that is current when it is
            asked for; 0 without a key.
        fields: In the order in which the operation has them; those at their default are
            left out.
        context: None in format 1.
    """

    repr_fields: ClassVar = ("kind", "key_name", "key_id", "requester")

    format: int
    kind: str
    requester: str
    key_id: str = ""
    key_name: str = ""
    algorithm: str = ""
    version: int = 0
    fields: tuple[ShownField, ...] = ()
    context: ShownContext | None = None


class ShownChange(msgspec.Struct, frozen=True):
    """
    One field that an operation changes, as text; empty text is no value.

    Attributes:
        removed: Of a list, the items that go.
        added: Of a list, the items that come.
    """

    name: str
    before: str
    after: str
    removed: tuple[str, ...] = ()
    added: tuple[str, ...] = ()


def changes(shown: ShownOperation) -> tuple[ShownChange, ...]:
    """Return every field that an operation changes, before and after it."""
    if shown.context is None:
        return ()
    was, becomes = _values(shown.context.before), _values(shown.fields)
    lists = {
        field.name.partition(".")[0]
        for field in (*shown.context.before, *shown.fields)
        if "." in field.name
    }
    found = []
    for name, before in was.items():
        after = becomes.get(name, [])
        gone = tuple(item for item in before if item not in after)
        new = tuple(item for item in after if item not in before)
        change = ShownChange(name, ", ".join(before), ", ".join(after))
        if name in lists:
            change = replace(change, removed=gone, added=new)
        found.append(change)
    return tuple(found)


def _values(fields: Iterable[ShownField]) -> dict[str, list[str]]:
    """Return the values of fields as text; the items of a list under its name."""
    found: dict[str, list[str]] = {}
    for field in fields:
        name, _, place = field.name.partition(".")
        if not place or place == "0":
            # The number of items, which came before them, is none of them.
            found[name] = []
        text = _text_of(field)
        if text:
            found[name].append(text)
    return found


def _text_of(field: ShownField) -> str:
    if field.text is not None:
        return field.text
    if field.number is not None:
        return str(field.number) if field.number else ""
    if field.data is not None:
        return field.data.hex()
    if field.length is not None:
        return f"{field.length} bytes, salted SHA-256 {field.sha256}"
    return ""


_PHRASES: Final = {
    "AttachCertificates": "attach certificates to",
    "CancelDestroy": "cancel the destruction of",
    "ExtendRetention": "extend the retention of",
    "PurgeVersion": "purge old material of",
    "RemoveCertificates": "remove the certificates of",
    "Rollback": "roll back",
    "SetRotation": "change the rotation of",
    "UpdateKey": "change",
}
_WORD: Final = "[A-Z][a-z]*"
_UNITS: Final = (
    ("month", 30 * 86_400),
    ("day", 86_400),
    ("hour", 3600),
    ("minute", 60),
)


class Headline(msgspec.Struct, frozen=True):
    """
    A request in one sentence, in parts: who asks for what, facts, how it is undone.

    Attributes:
        action: Such as ``destroy payments-2019``.
        facts: Such as ``AES-256-GCM, 3 versions, last used 14 months ago``; may be
            empty.
        undo: A sentence; empty in format 1.
    """

    requester: str
    action: str
    facts: str
    undo: str

    def __str__(self) -> str:
        facts = f" ({self.facts})" if self.facts else ""
        return (f"{self.requester} asks to {self.action}{facts}. {self.undo}").rstrip()


def headline(shown: ShownOperation, at: datetime) -> Headline:
    """
    Return a request in one sentence.

    Args:
        shown: What is asked for.

        at: Now, with a zone.
    """
    context = shown.context or ShownContext()
    names_version = any(field.name == "version" for field in shown.fields)
    facts = [shown.algorithm]
    if shown.version and names_version:
        facts.append(f"version {shown.version}")
    if context.versions:
        facts.append(f"{context.versions} version{'s' * (context.versions > 1)}")
        used = _ago(context.last_used_at, at) if context.last_used_at else "never used"
        facts.append(used)
    return Headline(
        requester=shown.requester,
        action=_action(shown),
        facts=", ".join(fact for fact in facts if fact),
        undo=context.undo,
    )


def _action(shown: ShownOperation) -> str:
    named = (f.text for f in shown.fields if f.name == "name" and not shown.key_id)
    subject = shown.key_name or shown.key_id or next(named, None) or ""
    if shown.kind in _PHRASES:
        return f"{_PHRASES[shown.kind]} {subject}".rstrip()
    words = [word.lower() for word in re.findall(_WORD, shown.kind)] or [shown.kind]
    if not shown.key_id:
        return " ".join([*words, subject]).rstrip()
    if words[-1] == "key" and len(words) > 1:
        return " ".join([*words[:-1], subject])
    return " ".join([*words, "with", subject])


def _ago(text: str, at: datetime) -> str:
    """Return how long ago the last use was, in words; as it is if that is no time."""
    try:
        seconds = (at - datetime.fromisoformat(text)).total_seconds()
    except (TypeError, ValueError):
        return f"last used {text}"
    for unit, size in _UNITS:
        count = int(seconds // size)
        if count > 0:
            return f"last used {count} {unit}{'s' * (count > 1)} ago"
    return "last used just now"


def check_shown(shown: ShownOperation) -> None:
    """
    Check that an operation from elsewhere can be shown without anything left unsaid.

    Raises:
        InvalidInputError: Its format is not known, two fields have one name, or a field
            is not in exactly one form.
    """
    if shown.format not in _FORMATS:
        raise InvalidInputError(
            f"operation.format must be 1 to {SHOWN_FORMAT}, got {shown.format}.",
            field="operation.format",
        )
    context = shown.context or ShownContext()
    for fields in (shown.fields, context.before, context.names):
        _check_fields(fields)


def _check_fields(fields: Iterable[ShownField]) -> None:
    names: set[str] = set()
    for field in fields:
        if field.name in names or not _has_one_form(field):
            raise InvalidInputError(
                f"operation.fields: {field.name[:64]!r} must occur once and have "
                "exactly one value.",
                field="operation.fields",
            )
        names.add(field.name)


def _has_one_form(field: ShownField) -> bool:
    forms = (field.text, field.number, field.data, field.length)
    hidden = field.length is not None
    if sum(form is not None for form in forms) > 1 or bool(field.sha256) is not hidden:
        return False
    return not hidden or _SHA256.fullmatch(field.sha256) is not None


def hidden_sha256(salt: bytes, name: str, value: bytes) -> str:
    """
    Return the salted digest of bytes that are not shown, hex.

    SHA-256 over a domain, the salt, the name's length as 2 bytes, the name, the value.

    Raises:
        InputSizeError: *salt* is not `SALT_BYTES` long.
    """
    _check_salt(salt)
    encoded = name.encode()
    framed = len(encoded).to_bytes(2, "big") + encoded
    return hashlib.sha256(_HIDDEN + salt + framed + value).hexdigest()


def shown_sha256(salt: bytes, shown: ShownOperation) -> str:
    """
    Return the digest that approvers see and sign, hex.

    SHA-256 over a domain, the salt, and the MessagePack form of *shown*: maps with
    their names in order, shortest forms, members at their default left out.

    Raises:
        InputSizeError: *salt* is not `SALT_BYTES` long. With any other length a part of
            one operation could be passed off as salt, and the rest as another one.
    """
    _check_salt(salt)
    return hashlib.sha256(_OPERATION + salt + _ENCODER.encode(shown)).hexdigest()


def _check_salt(salt: bytes) -> None:
    if len(salt) != SALT_BYTES:
        raise InputSizeError(
            "salt", actual=len(salt), minimum=SALT_BYTES, maximum=SALT_BYTES
        )


def statement(approval_id: str, digest: str, *, granted: bool) -> bytes:
    """
    Return the text that an approver signs: four lines, each ended by a newline.

    Args:
        approval_id: Of the approval, a UUID in lower-case canonical form.

        digest: `shown_sha256` of what was shown, 64 hex digits.

        granted: Whether they agree.

    Raises:
        InvalidInputError: The id or the digest is not what it should be, and could put
            lines of its own into the text.
    """
    for name, value, form in (
        ("approval_id", approval_id, _UUID),
        ("digest", digest, _SHA256),
    ):
        if not form.fullmatch(value):
            raise InvalidInputError(f"{name} is malformed.", field=name)
    word = "grant" if granted else "deny"
    return f"{_STATEMENT}\n{approval_id}\n{word}\n{digest}\n".encode()
