# SPDX-License-Identifier: MIT
"""Values of the RPC protocol: numbers, blocks and attributes, big-endian."""

from __future__ import annotations

import struct
from typing import Final, TypeAlias

from hsm_cli.interfaces.pkcs11 import constants as ck
from hsm_cli.interfaces.pkcs11.errors import CryptokiError

Value: TypeAlias = "bool | int | bytes | tuple[int, ...] | Template"
"""Value of an attribute: CK_BBOOL, CK_ULONG, bytes, mechanisms, or a template."""

Template: TypeAlias = dict[int, Value]
"""Attributes by type."""

Room: TypeAlias = "list[tuple[int, int | Room]]"
"""Attributes that a program asks for, in order, with the room for each."""

MOST_ATTRIBUTES: Final = 256
"""Attributes of a call, those of nested templates included."""

DEEPEST: Final = 8
"""Nesting of templates."""

ABSENT: Final = 0xFFFF_FFFF
"""Length of a block that is not there, and room for nothing."""

_UINT32: Final = struct.Struct(">I")
_UINT64: Final = struct.Struct(">Q")
_NATIVE: Final = struct.Struct("=Q")
_ATTRIBUTE_BYTES: Final = 24  # sizeof (CK_ATTRIBUTE)

_BYTES: Final = frozenset(
    {
        ck.CKA_TOKEN,
        ck.CKA_PRIVATE,
        ck.CKA_TRUSTED,
        ck.CKA_SENSITIVE,
        ck.CKA_ENCRYPT,
        ck.CKA_DECRYPT,
        ck.CKA_WRAP,
        ck.CKA_UNWRAP,
        ck.CKA_SIGN,
        ck.CKA_SIGN_RECOVER,
        ck.CKA_VERIFY,
        ck.CKA_VERIFY_RECOVER,
        ck.CKA_DERIVE,
        ck.CKA_EXTRACTABLE,
        ck.CKA_LOCAL,
        ck.CKA_NEVER_EXTRACTABLE,
        ck.CKA_ALWAYS_SENSITIVE,
        ck.CKA_MODIFIABLE,
        ck.CKA_COPYABLE,
        ck.CKA_SECONDARY_AUTH,
        ck.CKA_ALWAYS_AUTHENTICATE,
        ck.CKA_WRAP_WITH_TRUSTED,
        ck.CKA_RESET_ON_INIT,
        ck.CKA_HAS_RESET,
        ck.CKA_COLOR,
    }
)
"""Attributes that travel as one byte."""

_ULONGS: Final = frozenset(
    {
        ck.CKA_CLASS,
        ck.CKA_CERTIFICATE_TYPE,
        ck.CKA_CERTIFICATE_CATEGORY,
        ck.CKA_JAVA_MIDP_SECURITY_DOMAIN,
        ck.CKA_KEY_TYPE,
        ck.CKA_MODULUS_BITS,
        ck.CKA_PRIME_BITS,
        ck.CKA_SUB_PRIME_BITS,
        ck.CKA_VALUE_BITS,
        ck.CKA_VALUE_LEN,
        ck.CKA_KEY_GEN_MECHANISM,
        ck.CKA_AUTH_PIN_FLAGS,
        ck.CKA_HW_FEATURE_TYPE,
        ck.CKA_PIXEL_X,
        ck.CKA_PIXEL_Y,
        ck.CKA_RESOLUTION,
        ck.CKA_CHAR_ROWS,
        ck.CKA_CHAR_COLUMNS,
        ck.CKA_BITS_PER_PIXEL,
        ck.CKA_MECHANISM_TYPE,
    }
)
"""Attributes that travel as a number of 8 bytes."""

_TEMPLATES: Final = frozenset(
    {ck.CKA_WRAP_TEMPLATE, ck.CKA_UNWRAP_TEMPLATE, ck.CKA_DERIVE_TEMPLATE}
)

_RAW_FLAGS: Final = frozenset(
    {ck.CKA_DESTROYABLE, ck.CKA_ENCAPSULATE, ck.CKA_DECAPSULATE}
)
"""CK_BBOOLs that travel as blocks."""

_RAW_ULONGS: Final = frozenset(
    {ck.CKA_PARAMETER_SET, ck.CKA_NAME_HASH_ALGORITHM, ck.CKA_PROFILE_ID}
)
"""CK_ULONGs that travel as blocks, in the byte order of the machine."""


class MalformedCallError(CryptokiError):
    """Bytes that are no call."""

    def __init__(self) -> None:
        super().__init__(ck.CKR_DEVICE_ERROR, "A call was malformed.")


class CallReader:
    """
    Reader of one message.

    Args:
        data: The message.

        at: Where to begin.

    Every method raises `MalformedCallError` where the message ends too early.
    """

    __slots__ = ("_at", "_data", "_end")

    def __init__(self, data: bytes, at: int = 0) -> None:
        self._data = data
        self._at = at
        self._end = len(data)

    @property
    def left(self) -> int:
        """Bytes that are not read yet."""
        return self._end - self._at

    def _step(self, length: int) -> int:
        at = self._at
        if length > self._end - at:
            raise MalformedCallError
        self._at = at + length
        return at

    def byte(self) -> int:
        """Read a byte."""
        return self._data[self._step(1)]

    # The two that every call has many of step by themselves.

    def uint32(self) -> int:
        """Read a number of 4 bytes."""
        at = self._at
        end = self._at = at + 4
        if end > self._end:
            raise MalformedCallError
        return int.from_bytes(self._data[at:end], "big")

    def ulong(self) -> int:
        """Read a CK_ULONG."""
        at = self._at
        end = self._at = at + 8
        if end > self._end:
            raise MalformedCallError
        return int.from_bytes(self._data[at:end], "big")

    def raw(self, length: int) -> bytes:
        """Read *length* bytes."""
        at = self._step(length)
        return self._data[at : at + length]

    def block(self) -> bytes:
        """Read a block with its length; an absent one is empty."""
        length = self.uint32()
        return b"" if length == ABSENT else self.raw(length)

    def array(self) -> bytes:
        """
        Read the bytes of an argument.

        Raises:
            CryptokiError: The program passed a NULL pointer with a length.
        """
        if self.byte():
            return self.block()
        if self.uint32():
            raise CryptokiError(ck.CKR_ARGUMENTS_BAD)
        return b""

    def capacity(self) -> int | None:
        """Read the room for a result; None if the program asks for its length."""
        number = self.uint32()
        if number == ABSENT:
            return 0
        return number or None

    def template(self) -> Template:
        """
        Read the attributes of a template.

        Raises:
            CryptokiError: A value has another length than its type, or an attribute
                occurs twice.
        """
        return self._template(1, [MOST_ATTRIBUTES])

    def _template(self, depth: int, budget: list[int]) -> Template:
        found: Template = {}
        fault: CryptokiError | None = None
        for _ in range(self._count(depth, budget)):
            kind, is_valid = self.uint32(), self.byte()
            if not is_valid:
                fault = CryptokiError(ck.CKR_ATTRIBUTE_VALUE_INVALID)
                continue
            length = self.uint32()
            value, actual = self._value(kind, length, depth, budget)
            if actual != length or value is None:
                fault = CryptokiError(ck.CKR_ATTRIBUTE_VALUE_INVALID)
            elif kind in found:
                fault = CryptokiError(ck.CKR_TEMPLATE_INCONSISTENT)
            else:
                found[kind] = value
        if fault is not None:
            raise fault
        return found

    def _count(self, depth: int, budget: list[int]) -> int:
        count = self.uint32()
        budget[0] -= count
        if depth > DEEPEST or budget[0] < 0:
            raise MalformedCallError
        return count

    def _value(
        self, kind: int, length: int, depth: int, budget: list[int]
    ) -> tuple[Value | None, int]:
        """Read a value; return it with its length, or None if it is not valid."""
        if kind in _BYTES:
            return _flag(self.byte()), 1
        if kind in _ULONGS:
            return self.ulong(), 8
        if kind in _TEMPLATES:
            nested = self._template(depth + 1, budget)
            return nested, _ATTRIBUTE_BYTES * len(nested)
        if kind == ck.CKA_ALLOWED_MECHANISMS:
            count = self._count(depth, budget)
            return tuple(self.ulong() for _ in range(count)), 8 * count
        block = self.block()
        if kind in _RAW_FLAGS:
            return (_flag(block[0]) if len(block) == 1 else None), length
        if kind in _RAW_ULONGS:
            return (_NATIVE.unpack(block)[0] if len(block) == 8 else None), length
        return block, len(block)

    def room(self) -> Room:
        """Read what attributes a program asks for."""
        return self._room(1, [MOST_ATTRIBUTES])

    def _room(self, depth: int, budget: list[int]) -> Room:
        found: Room = []
        for _ in range(self._count(depth, budget)):
            kind, length = self.uint32(), self.uint32()
            is_nested = length and kind in _TEMPLATES
            found.append((kind, self._room(depth + 1, budget) if is_nested else length))
        return found


def _flag(byte: int) -> bool | None:
    return bool(byte) if byte <= 1 else None


def uint32(number: int) -> bytes:
    """Return a number of 4 bytes."""
    return _UINT32.pack(number)


def ulong(number: int) -> bytes:
    """Return a CK_ULONG."""
    return _UINT64.pack(number)


def block(data: bytes) -> bytes:
    """Return bytes with their length."""
    return _UINT32.pack(len(data)) + data


def attribute(kind: int, value: Value | None) -> bytes:
    """Return an attribute; None if its value is unavailable."""
    if value is None:
        return _UINT32.pack(kind) + b"\0"
    data, length = _encoded(kind, value)
    return b"%b\1%b%b" % (_UINT32.pack(kind), _UINT32.pack(length), data)


def length_of(kind: int, value: Value) -> int:
    """Return the bytes that a program needs for the value of an attribute."""
    return _encoded(kind, value)[1]


def _encoded(kind: int, value: Value) -> tuple[bytes, int]:
    """Return the bytes that travel, and the length in the program."""
    if isinstance(value, bool):
        return (
            block(b"\1" if value else b"\0")
            if kind in _RAW_FLAGS
            else b"\1"
            if value
            else b"\0"
        ), 1
    if isinstance(value, int):
        return (block(_NATIVE.pack(value)) if kind in _RAW_ULONGS else ulong(value)), 8
    if isinstance(value, bytes):
        return block(value), len(value)
    if isinstance(value, tuple):
        return uint32(len(value)) + b"".join(map(ulong, value)), 8 * len(value)
    nested = [attribute(inner, found) for inner, found in value.items()]
    return uint32(len(nested)) + b"".join(nested), _ATTRIBUTE_BYTES * len(nested)
