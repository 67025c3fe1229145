# SPDX-License-Identifier: MIT
"""
What front ends and vault send each other.

A frame is its length, 4 bytes, big endian, and MessagePack: an array of the type's name
and its fields in order. No frame is longer than `MAX_FRAME_BYTES`; a longer operation,
event or answer goes in chunks before the frame that completes it. A type that the other
side may not send is as unknown as one that nobody knows.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Final, TypeAlias

import msgspec
from msgspec import Meta

from hsm_core.wire import ErrorRecord
from hsm_server.limits.quota import Quota
from hsm_server.vault.access import Visitor

PROTOCOL: Final = 5
"""Version of this protocol; both sides must speak the same."""

HEADER_BYTES: Final = 4
"""What stands before each frame: its length."""

MAX_FRAME_BYTES: Final = 1024 * 1024
"""Longest frame, without its header."""

CHUNK_BYTES: Final = 256 * 1024
"""How much of an operation or answer goes in one piece."""

MAX_WAITING: Final = 4096
"""Requests of one front end that may wait for their answers."""

MOST_REFUSED_KEY: Final = 64
"""Characters of a key's name that a refusal tells."""

MOST_APPROVAL_ID: Final = 64
"""Characters of the id of an approval that a request names."""

Id: TypeAlias = Annotated[int, Meta(ge=1, lt=2**53)]


class _Frame(
    msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True, tag=True
):
    """Base of all frames; a repr shows its type alone, for a field may be secret."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class Hello(_Frame, frozen=True, tag="hello"):
    """
    The first frame in each direction.

    Attributes:
        protocol: Must be `PROTOCOL`.
        release: Version of hsm-server, for the log.
    """

    protocol: int
    release: Annotated[str, Meta(max_length=64)]


class Purpose(StrEnum):
    """What a request is for; see the methods of `VaultAccess`."""

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
    Somebody asks for something.

    Attributes:
        id: Larger than any before on this connection.
        operation: MessagePack of the operation; with *in_chunks*, what is left of it
            after its chunks.
        code: Of a refusal: the error that is answered.
        kind: Of a refusal: the operation that was meant.
        key_id: Of a refusal: the key that was named.
        approval_id: The approval that it is to be done under, if one is named.
        expected_generation: The one that the key must be at; 0 is any.
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


class Answer(_Frame, frozen=True, tag="answer"):
    """
    The answer to a request; nothing more comes for its id.

    Attributes:
        principal: Who asked, as the vault has found.
        result: MessagePack of the result, or JSON of token keys; with *in_chunks*,
            what is left of it.
        error: In the place of a result.
        quota: What is left to who asked, where that is limited.
    """

    id: Id
    principal: str = ""
    result: bytes = b""
    in_chunks: bool = False
    error: ErrorRecord | None = None
    quota: Quota | None = None


class Chunk(_Frame, frozen=True, tag="chunk"):
    """A piece of the operation, event or answer that has this id."""

    id: Id
    data: bytes


class Event(_Frame, frozen=True, tag="event"):
    """
    A part of a long answer that has a meaning of its own, such as a page.

    Attributes:
        data: MessagePack of the part; with *in_chunks*, what is left of it.
    """

    id: Id
    principal: str
    data: bytes
    in_chunks: bool = False


class Cancel(_Frame, frozen=True, tag="cancel"):
    """Nobody waits for the answer any more; what was not begun is not to be done."""

    id: Id


FromFrontEnd: TypeAlias = Hello | Request | Chunk | Cancel
"""What a vault reads."""

FromVault: TypeAlias = Hello | Answer | Chunk | Event
"""What a front end reads."""

_ENCODER: Final = msgspec.msgpack.Encoder()


def packed(frame: _Frame) -> bytes:
    """Return a frame with its header."""
    body = _ENCODER.encode(frame)
    return len(body).to_bytes(HEADER_BYTES, "big") + body


def cut(data: bytes) -> tuple[Iterator[bytes], bytes]:
    """Return the chunks to send before, and what is left for the frame itself."""
    whole = max(0, len(data) - 1) // CHUNK_BYTES * CHUNK_BYTES
    pieces = (data[at : at + CHUNK_BYTES] for at in range(0, whole, CHUNK_BYTES))
    return pieces, data[whole:]
