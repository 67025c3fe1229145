# SPDX-License-Identifier: MIT
"""
What people consent to: an operation as it is shown, its digest, and what they sign.

A client recomputes the digest from what it displays, so that nobody agrees to something
else than they saw. Bytes that are secret or long are shown by their length and a salted
hash.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

import msgspec

from hsm_core.errors import InputSizeError, InvalidInputError
from hsm_core.model import Record

__all__ = [
    "SALT_BYTES",
    "SHOWN_FORMAT",
    "SSH_NAMESPACE",
    "ShownField",
    "ShownOperation",
    "check_shown",
    "hidden_sha256",
    "shown_sha256",
    "statement",
]

SALT_BYTES: Final = 32
"""Length of the random salt of each approval."""

SHOWN_FORMAT: Final = 1
"""Version of the form in which operations are shown."""

SSH_NAMESPACE: Final = "ferrohsm-approval"
"""What ``ssh-keygen -Y sign -n`` is given."""

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


class ShownOperation(Record, frozen=True, kw_only=True):
    """
    An operation as it is shown to those who are asked for their consent.

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
    """

    format: int
    kind: str
    requester: str
    key_id: str = ""
    key_name: str = ""
    algorithm: str = ""
    version: int = 0
    fields: tuple[ShownField, ...] = ()


def check_shown(shown: ShownOperation) -> None:
    """
    Check that an operation from elsewhere can be shown without anything left unsaid.

    Raises:
        InvalidInputError: Its format is not known, two fields have one name, or a field
            is not in exactly one form.
    """
    if shown.format != SHOWN_FORMAT:
        raise InvalidInputError(
            f"It is shown in format {shown.format}; {SHOWN_FORMAT} is known.",
            field="operation.format",
        )
    names: set[str] = set()
    for field in shown.fields:
        if field.name in names or not _has_one_form(field):
            raise InvalidInputError(
                f"The field {field.name[:64]!r} is not shown in one way.",
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
    Return what stands for bytes that are not shown, hex.

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
            raise InvalidInputError(f"{name} is none.", field=name)
    word = "grant" if granted else "deny"
    return f"{_STATEMENT}\n{approval_id}\n{word}\n{digest}\n".encode()
