# SPDX-License-Identifier: MIT
"""
Frames between front ends and vault.

A frame is its length, 4 bytes, big endian, and MessagePack: an array of the type's name
and its fields in order. No frame is longer than `MAX_FRAME_BYTES`; a longer payload,
operation, event or response is sent in chunks before the frame that completes it. A
type that the other side may not send is rejected like an unknown one.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta

from hsm_core.error_records import ErrorRecord
from hsm_server.limits.buckets import Quota
from hsm_server.vault.access import Visitor

PROTOCOL: Final = 9
"""Protocol version; must be equal on both sides."""

HEADER_BYTES: Final = 4
"""Header of a frame: its length."""

MAX_FRAME_BYTES: Final = 1024 * 1024
"""Longest frame, without its header."""

CHUNK_BYTES: Final = 64 * 1024
"""Size of a chunk of an operation or response."""

MAX_WAITING: Final = 4096
"""Maximum number of requests in progress per front end."""

MOST_REFUSED_KEY: Final = 64
"""Maximum length of a key's name in a rejected request."""

MOST_APPROVAL_ID: Final = 64
"""Maximum length of an approval ID in a request."""

Id: TypeAlias = Annotated[int, Meta(ge=1, lt=2**53)]


class _Frame(
    msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=True
):
    """Base of all frames. Its repr shows only the type: fields may be secret."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class Hello(_Frame, frozen=True, tag="hello"):
    """
    First frame in each direction.

    Attributes:
        protocol: Must be `PROTOCOL`.
        release: Version of hsm-server, for the log.
    """

    protocol: int
    release: Annotated[str, Meta(max_length=64)]


class Purpose(StrEnum):
    """Purpose of a request; see the methods of `VaultAccess`."""

    EXECUTE = "execute"
    GREET = "greet"
    REFUSE = "refuse"
    FOLLOW = "follow"
    STATUS = "status"
    PUBLIC_KEYS = "public_keys"
    WHO = "who"
    SIGN_IN = "sign_in"
    SIGN_OUT = "sign_out"


class Request(_Frame, frozen=True, tag="request"):
    """
    Request of a visitor.

    Attributes:
        id: Larger than any before on this connection.
        operation: MessagePack of the operation; with *in_chunks*, the rest of it after
            its chunks.
        code: Of a rejected request: the error code.
        kind: Of a rejected request: the intended operation.
        key_id: Of a rejected request: the named key.
        approval_id: The approval to use, if named.
        expected_generation: Required generation of the key; 0 is any.
        payload: Field of the operation that the chunks hold, which is empty in
            *operation*; empty if they hold the operation's beginning.
    """

    id: Id
    purpose: Purpose
    visitor: Visitor
    operation: bytes = b""
    in_chunks: bool = False
    idempotency_key: Annotated[str, Meta(max_length=1024)] | None = None
    code: Annotated[str, Meta(max_length=64)] = ""
    kind: Annotated[str, Meta(max_length=64)] = ""
    key_id: Annotated[str, Meta(max_length=MOST_REFUSED_KEY)] = ""
    approval_id: Annotated[str, Meta(max_length=MOST_APPROVAL_ID)] = ""
    expected_generation: Annotated[int, Meta(ge=-1, le=2**53)] = 0
    payload: Annotated[str, Meta(max_length=64)] = ""


class Answer(_Frame, frozen=True, tag="answer"):
    """
    Response to a request; the last frame for its ID.

    Attributes:
        principal: The authenticated principal.
        result: MessagePack of the result, or JSON of token keys; with *in_chunks*, the
            rest of it.
        error: Error instead of a result.
        quota: The rest of the caller's rate limit, if limited.
        payload: Field of the result that the chunks hold, which is empty in *result*;
            empty if they hold the result's beginning.
        revision: Newest change of the cluster that the node has applied; or 0.
    """

    id: Id
    principal: str = ""
    result: bytes = b""
    in_chunks: bool = False
    error: ErrorRecord | None = None
    quota: Quota | None = None
    payload: Annotated[str, Meta(max_length=64)] = ""
    revision: int = 0


class Chunk(_Frame, frozen=True, tag="chunk"):
    """Chunk of the operation, event, response or payload with this ID."""

    id: Id
    data: bytes


class Event(_Frame, frozen=True, tag="event"):
    """
    Part of a long response with its own meaning, such as a page.

    Attributes:
        data: MessagePack of the part; with *in_chunks*, the rest of it.
    """

    id: Id
    principal: str
    data: bytes
    in_chunks: bool = False


class Cancel(_Frame, frozen=True, tag="cancel"):
    """Cancellation: skip the request if its execution has not begun."""

    id: Id


class Limits(_Frame, frozen=True, tag="limits"):
    """
    What the address limits depend on in a cluster: once known, and when it changes.

    Attributes:
        divisor: See `ClusterLimits`, like the next one.
    """

    divisor: Annotated[int, Meta(ge=1)]
    lockouts: dict[str, float]


FromFrontEnd: TypeAlias = Hello | Request | Chunk | Cancel
"""Frames that a vault reads."""

FromVault: TypeAlias = Hello | Answer | Chunk | Event | Limits
"""Frames that a front end reads."""

_ENCODER: Final = msgspec.msgpack.Encoder()


def packed(frame: _Frame) -> bytes:
    """Return a frame with its header."""
    body = _ENCODER.encode(frame)
    return len(body).to_bytes(HEADER_BYTES, "big") + body


def chunk_head(number: int, size: int) -> bytes:
    """Return what stands before the data in the frame of a chunk of *size* bytes."""
    head = b"\x93" + _ENCODER.encode("chunk") + _ENCODER.encode(number) + b"\xc6"
    head += size.to_bytes(4, "big")
    return (len(head) + size).to_bytes(HEADER_BYTES, "big") + head


def cut(data: bytes) -> tuple[Iterator[memoryview], bytes]:
    """Return the chunks to send before, and what is left for the frame itself."""
    whole = max(0, len(data) - 1) // CHUNK_BYTES * CHUNK_BYTES
    view = memoryview(data)
    pieces = (view[at : at + CHUNK_BYTES] for at in range(0, whole, CHUNK_BYTES))
    return pieces, data[whole:]
