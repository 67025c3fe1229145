# SPDX-License-Identifier: MIT
"""
Payloads: long byte strings, which travel as chunks before their frame, not inside it.

Operation and result have one field that can be long, the one that is the whole body of
a raw request or response. Above `CHUNK_BYTES` it is left empty in the MessagePack of
the frame, which names it. So no process encodes or decodes a payload, and each holds it
once: the sender until the last chunk is sent, the receiver in one growing buffer.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from io import BytesIO
from typing import Any, Final, NamedTuple, TypeVar

import msgspec

from hsm_core import wire
from hsm_core.errors import MalformedError
from hsm_core.model import Record
from hsm_core.operations import Operation
from hsm_server.ipc.frames import CHUNK_BYTES, Request

RecordT = TypeVar("RecordT", bound=Record)


class Outgoing(NamedTuple):
    """
    Operation or result that is ready to be sent.

    Attributes:
        packed: MessagePack, with an empty field where the payload is.
        field: Name of that field; empty if everything is in *packed*.
        chunks: Chunks of the payload, which hold it until the last one is taken.
        size: Length of the payload.
    """

    packed: bytes
    field: str
    chunks: Iterator[memoryview]
    size: int


NOTHING: Final = Outgoing(b"", "", iter(()), 0)


def pack(value: Record, field: str) -> Outgoing:
    """
    Return an operation or a result as it is sent; *value* is not kept.

    Args:
        value: The operation or result.

        field: Name of its field that can be long; empty if there is none.
    """
    data = getattr(value, field) if field else None
    if not isinstance(data, bytes) or len(data) <= CHUNK_BYTES:
        return NOTHING._replace(packed=wire.encode_packed(value))
    rest = msgspec.structs.replace(value, **{field: b""})
    return Outgoing(wire.encode_packed(rest), field, _chunks(data), len(data))


def unpack_operation(frame: Request, whole: bytes) -> Operation[Any]:
    """
    Return the operation of a request.

    Args:
        frame: The request.

        whole: Its payload; the whole operation, if it names no field.

    Raises:
        HSMError: It can't be read.
    """
    if not frame.payload:
        return wire.decode_packed_operation(whole)
    operation = wire.decode_packed_operation(frame.operation)
    return put_back(operation, frame.payload, operation.route.raw_request, whole)


def put_back(value: RecordT, field: str, expected: str, data: bytes) -> RecordT:
    """
    Return an operation or a result with its payload.

    Args:
        value: As it was decoded, with the field empty.

        field: Name of the field, from the frame.

        expected: Name of the only field that it may be.

        data: All chunks.

    Raises:
        MalformedError: The frame names another field, or the field is not empty.
        InvalidInputError: The payload breaks the limits of the field's type.
    """
    if field != expected or getattr(value, field) != b"":
        raise MalformedError("The frame names a field that cannot have chunks.")
    wire.convert(data, _type_of(type(value), field))
    return msgspec.structs.replace(value, **{field: data})


@cache
def _type_of(kind: type[Record], name: str) -> Any:
    (found,) = (f for f in msgspec.structs.fields(kind) if f.name == name)
    return found.type


def _chunks(data: bytes) -> Iterator[memoryview]:
    view = memoryview(data)
    for begin in range(0, len(view), CHUNK_BYTES):
        yield view[begin : begin + CHUNK_BYTES]


class Collected:
    """Chunks of one payload that have arrived."""

    __slots__ = ("_buffer",)

    def __init__(self) -> None:
        self._buffer = BytesIO()

    def add(self, chunk: bytes) -> int:
        """Take a chunk in; return the length of all."""
        self._buffer.write(chunk)
        return self._buffer.tell()

    def take(self) -> bytes:
        """Return all chunks; they are not copied."""
        buffer, self._buffer = self._buffer, BytesIO()
        return buffer.getvalue()
