# SPDX-License-Identifier: MIT
"""
What people consent to: an operation as it is shown, its digest, and what they sign.

A client recomputes the digest from what it displays, so that nobody agrees to something
else than they saw. Bytes that are secret or long are shown by their length and a salted
hash.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

from hsm_core.model import Record

__all__ = [
    "SALT_BYTES",
    "ShownField",
    "ShownOperation",
    "hidden_sha256",
    "shown_sha256",
    "statement",
]

SALT_BYTES: Final = 32
"""Length of the random salt of each approval."""

_OPERATION: Final = b"ferrohsm approval operation v1\0"
_HIDDEN: Final = b"ferrohsm approval field v1\0"
_STATEMENT: Final = "ferrohsm approval v1"
_ENCODER: Final = msgspec.msgpack.Encoder(order="deterministic")


class ShownField(Record, frozen=True, kw_only=True):
    """
    One field of an operation, in one of four forms.

    Attributes:
        name: Name of the field; of items of a list ``items.0.message``.
        text: Its value, if it is text, or of an enumeration.
        number: Its value, if it is an integer; 0 or 1 if it is a truth value.
        data: Its value, if it is bytes that may be shown.
        length: Of bytes that are not shown; 0, without a hash, of a list that is empty.
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
        format: 1.
        kind: Name of the operation.
        requester: Principal that asked.
        key_id: The key that it is about, or empty.
        key_name: Its name at that time.
        algorithm: Of the key, or of the one to be made.
        version: The version that it uses or is about, or 0.
        fields: By name; those at their default are left out.
    """

    format: int
    kind: str
    requester: str
    key_id: str = ""
    key_name: str = ""
    algorithm: str = ""
    version: int = 0
    fields: tuple[ShownField, ...] = ()


def hidden_sha256(salt: bytes, name: str, value: bytes) -> str:
    """
    Return what stands for bytes that are not shown, hex.

    SHA-256 over a domain, the salt, the name's length as 2 bytes, the name, the value.
    """
    encoded = name.encode()
    framed = len(encoded).to_bytes(2, "big") + encoded
    return hashlib.sha256(_HIDDEN + salt + framed + value).hexdigest()


def shown_sha256(salt: bytes, shown: ShownOperation) -> str:
    """
    Return the digest that approvers see and sign, hex.

    SHA-256 over a domain, the salt, and the deterministic MessagePack form of *shown*:
    maps with their names in order, members at their default left out.
    """
    return hashlib.sha256(_OPERATION + salt + _ENCODER.encode(shown)).hexdigest()


def statement(approval_id: str, digest: str, *, granted: bool) -> bytes:
    """
    Return the text that an approver signs: four lines, each ended by a newline.

    Args:
        approval_id: Of the approval.

        digest: `shown_sha256` of what was shown.

        granted: Whether they agree.
    """
    word = "grant" if granted else "deny"
    return f"{_STATEMENT}\n{approval_id}\n{word}\n{digest}\n".encode()
